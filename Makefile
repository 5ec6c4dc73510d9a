# make help lists what there is to make.

# As kedr vm fetch takes them. CORE are those that the tests from outside of the
# machine run on, and the ones to try a change with.
CORE ?= 6.1 6.12
KERNELS ?= 5.10 6.1 6.12 7.3
# Of those, other flavours of one kernel, for make conformance KERNELS="$(FLAVOURS)".
FLAVOURS := 6.1-cloud 6.1-rt 6.12:kprobe
# Where there are no trampolines: 32-bit x86, which has no BTF either, and 64-bit kernels
# with what they have left alone; of these 6.12:kprobe is tried like the flavours.
BACKENDS ?= 6.1/i386 6.1:kprobe
# What does not go by the back end is not tested anew.
KPROBE_TESTS := TestRun$$|TestKernel|TestWalkthrough|TestFilesystem|TestBothWays|TestReload|TestLifecycle|TestForgotten|TestCatalog|TestMount|TestIncomplete
COLUMNS := $(subst :,-,$(subst /,-,$(sort $(KERNELS) $(FLAVOURS) $(BACKENDS))))
GO ?= go
BIN := bin/kedr
export CGO_ENABLED := 0

# The Debian packages that tests and the demo need; what is there stays as it is.
PACKAGES := qemu-system-x86 kmod make gcc libc6-dev e2fsprogs util-linux mmdebstrap xfsprogs dosfstools
BENCH_PACKAGES := trace-cmd bpftrace
BPF_PACKAGES := clang llvm libbpf-dev linux-libc-dev
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help all demo build packages bpf-packages unit machine conformance prototypes traces kernels test lint generate check-generated fuzz clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

all: build

build: ## build bin/kedr, and bin/kedr-386 for 32-bit machines
	@mkdir -p bin
	$(GO) build -trimpath -o $(BIN) ./cmd/kedr
	GOARCH=386 $(GO) build -trimpath -o $(BIN)-386 ./cmd/kedr

packages:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing" $$missing; \
		$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi

bpf-packages:
	@missing=$$(for p in $(BPF_PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing" $$missing; \
		$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi

demo: packages build ## leak-check the example in a machine with Debian's kernel 6.1
	@mkdir -p build/demo
	@cp examples/hello-kernel/hello.c examples/hello-kernel/Makefile build/demo/
	@$(BIN) vm build --kernel 6.1 build/demo -- -s >build/demo/build.log 2>&1 || { cat build/demo/build.log; exit 1; }
	$(BIN) run --vm=always build/demo/hello-kernel.ko || [ $$? -eq 1 ]

unit: ## the tests that need no machine
	$(GO) test ./...

# One boot a kernel runs them all. Each kernel's run is kept, for make kernels. On a busy
# host events can be lost (Linux 7 preempts programs in trampolines), of which kedr says
# so, and what one does then is to run again.
conformance: packages build
	@mkdir -p build/conformance; failed=; for v in $(KERNELS) $(BACKENDS); do \
		k=$${v%:*}; dir=$$(echo $$k | tr / -); out=build/conformance/$$(echo $$v | tr /: --).txt; \
		arch=$$($(GO) env GOARCH); bin=$(CURDIR)/$(BIN); flags=; tests=.; \
		case $$v in */i386) arch=386; bin=$$bin-386;; *:kprobe) flags="--backend=kprobe --btf=none"; tests='$(KPROBE_TESTS)';; esac; \
		test/modules/build.sh $$k build/modules/$$dir || { failed="$$failed $$v"; continue; }; \
		for try in 1 2 3; do \
			echo "conformance on $$v"; \
			KEDR=$$bin KEDR_FLAGS="$$flags" KEDR_MODULES=$(CURDIR)/build/modules/$$dir GOARCH=$$arch \
			$(GO) test -v -tags guest -count=1 -timeout 30m -run "$$tests" -exec '$(CURDIR)/$(BIN) vm exec --kernel '$$k' --' \
				./test/conformance >$$out 2>&1; status=$$?; \
			[ $$status -ne 0 ] || break; \
			grep -v -E '^ *(=== |--- PASS)' $$out; \
			grep -q 'does not let a probe interrupt itself' $$out || break; \
		done; \
		if [ $$status -ne 0 ]; then failed="$$failed $$v"; else tail -n 1 $$out; fi; \
	done; \
	if [ -n "$$failed" ]; then echo "failed on:$$failed"; exit 1; fi

prototypes: build ## write what the kernels say of the catalog's functions, for kernels that don't
	@mkdir -p build/btf; for v in $(KERNELS); do $(BIN) vm exec --kernel $$v -- cat /sys/kernel/btf/vmlinux >build/btf/$$v || exit 1; done
	$(GO) run ./test/prototypes $(foreach v,$(KERNELS),$(v)=build/btf/$(v)) >build/prototypes.txt
	mv build/prototypes.txt internal/prototype/data/prototypes.txt

traces: packages build ## the tests of what traces are made of, on each of $(KERNELS)
	@for v in $(KERNELS); do \
		echo "traces on $$v"; \
		$(GO) test -tags guest -count=1 -timeout 30m -exec '$(CURDIR)/$(BIN) vm exec --kernel '$$v' --' ./test/trace || exit 1; \
	done

kernels: ## write docs/kernels.md from the last runs of the conformance tests, flavours included
	@for v in $(COLUMNS); do $(GO) tool test2json -p conformance <build/conformance/$$v.txt >build/conformance/$$v.json || exit 1; done
	$(GO) run ./test/kernels $(patsubst %,build/conformance/%.json,$(COLUMNS)) >build/kernels.md
	mv build/kernels.md docs/kernels.md

machine: packages build
	@for v in $(CORE) 6.1/i386; do \
		test/modules/build.sh $$v build/modules/$$(echo $$v | tr / -) || exit 1; \
	done
	KEDR=$(CURDIR)/$(BIN) KEDR_KERNELS='$(CORE)' KEDR_MODULES=$(CURDIR)/build/modules \
		$(GO) test -tags machine -count=1 -timeout 30m ./test/machine
	KEDR=$(CURDIR)/$(BIN) KEDR_KERNELS='$(KERNELS)' $(GO) test -tags machine -count=1 ./internal/trace/describe

test: unit machine conformance traces ## all tests: unit, and in machines with each of $(KERNELS)

bench: packages build ## measure what kedr costs, beside other tools: docs/bench
	@missing=$$(for p in $(BENCH_PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing" $$missing; \
		$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi
	@for v in $(CORE); do test/modules/build.sh $$v build/modules/$$v || exit 1; done
	@mkdir -p build/bench && $(GO) build -o build/bench/bench ./test/bench
	build/bench/bench -o docs/bench $(CORE)
	test/modules/build.sh 6.1/i386 build/modules/6.1-i386
	$(GO) run ./test/bench/backends -o docs/bench $(CORE) 6.1/i386

lint: ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l cmd internal test examples); if [ -n "$$bad" ]; then echo "not gofmt-ed:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	GOARCH=386 $(GO) vet ./cmd/... ./internal/...
	GOARCH=386 $(GO) vet -tags guest ./test/conformance
	$(GO) vet -tags guest ./test/...
	$(GO) vet -tags machine ./test/... ./internal/trace/...
	$(GO) tool staticcheck ./...

generate: bpf-packages ## compile the eBPF programs anew
	$(GO) generate ./internal/probe ./test/trace

# The compiler's output is not the same from version to version; what the programs
# do to the kernel is in their instructions and maps, and these are compared.
check-generated: bpf-packages
	@mkdir -p build
	@cp internal/probe/kedr_bpfel.o build/committed.o; cp internal/probe/kedr_bpfel.go build/committed.go.txt
	$(GO) generate ./internal/probe
	@llvm-objdump -d --no-leading-addr build/committed.o | tail -n +3 >build/committed.s; \
	llvm-objdump -d --no-leading-addr internal/probe/kedr_bpfel.o | tail -n +3 >build/generated.s; \
	ok=0; cmp -s build/committed.s build/generated.s && cmp -s build/committed.go.txt internal/probe/kedr_bpfel.go || ok=1; \
	cp build/committed.o internal/probe/kedr_bpfel.o; cp build/committed.go.txt internal/probe/kedr_bpfel.go; \
	if [ $$ok -ne 0 ]; then echo "the compiled programs are not those of internal/probe/bpf: make generate, and commit"; exit 1; fi

fuzz: ## fuzz each parser for half a minute
	$(GO) test -run NONE -fuzz FuzzOpen -fuzztime 30s ./internal/target
	$(GO) test -run NONE -fuzz FuzzFrames -fuzztime 30s ./internal/symbolize
	$(GO) test -run NONE -fuzz FuzzReadFrame -fuzztime 30s ./internal/machine
	$(GO) test -run NONE -fuzz FuzzReader -fuzztime 30s ./internal/trace
	$(GO) test -run NONE -fuzz FuzzReadSymbols -fuzztime 30s ./internal/probe
	$(GO) test -run NONE -fuzz FuzzParseFormat -fuzztime 30s ./internal/trace/describe
	$(GO) test -run NONE -fuzz FuzzParse -fuzztime 30s ./internal/trace/filter

clean: ## remove what was built here; kernels stay in the user's cache
	rm -rf bin build
