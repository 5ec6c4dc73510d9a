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
# So many machines at a time: each is one thread of the emulator. A kernel that preempts
# programs loses events when its machine is: it has the host for itself.
JOBS ?= $(shell nproc)
ALONE ?= 7.3
COLUMNS := $(subst :,-,$(subst /,-,$(sort $(KERNELS) $(FLAVOURS) $(BACKENDS))))
GO ?= go
BIN := bin/kedr
export CGO_ENABLED := 0

# The Debian packages that tests and the demo need; what is there stays as it is.
PACKAGES := qemu-system-x86 kmod iproute2 make gcc libc6-dev e2fsprogs util-linux mmdebstrap xfsprogs dosfstools xz-utils
# With what virtme-ng runs on, and udev, which its machine takes from the host.
BENCH_PACKAGES := trace-cmd bpftrace busybox-static python3-argcomplete python3-requests python3-pkg-resources file udev bsdutils
MAN_PACKAGES := man-db groff mandoc bash zsh fish
BPF_PACKAGES := clang llvm libbpf-dev linux-libc-dev
BROWSER_PACKAGES := chromium fonts-dejavu-core
PREFIX ?= /usr/local
MANDIR ?= $(PREFIX)/share/man
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help all demo build packages bpf-packages man install check-install docs-reference unit browser machine conformance prototypes traces kernels test lint generate check-generated fuzz clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

all: build

build: ## build bin/kedr, and bin/kedr-386 for 32-bit machines
	@mkdir -p bin
	$(GO) build -trimpath -o $(BIN) ./cmd/kedr
	GOARCH=386 $(GO) build -trimpath -o $(BIN)-386 ./cmd/kedr

man: build ## write the manual pages to build/man; SOURCE_DATE_EPOCH is their date, else the commit's
	rm -rf build/man
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(BIN) man build/man/man1

install: man ## install below DESTDIR and PREFIX: programs, manual pages, completions
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/kedr
	[ ! -e $(BIN)-386 ] || install -m 755 $(BIN)-386 $(DESTDIR)$(PREFIX)/bin/kedr-386
	install -m 644 build/man/man1/*.1 $(DESTDIR)$(MANDIR)/man1/
	$(BIN) completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/kedr
	$(BIN) completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_kedr
	$(BIN) completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/kedr.fish

# What is installed is read by those that will read it.
check-install:
	@missing=$$(for p in $(MAN_PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing" $$missing; \
		$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi
	rm -rf build/root
	$(MAKE) -s install DESTDIR=build/root PREFIX=/usr
	build/root/usr/bin/kedr --version >/dev/null
	@cd build/root/usr/share && for page in man/man1/*.1; do \
		mandoc -T lint -W warning $$page || exit 1; \
		said=$$(groff -man -Tutf8 -ww -z $$page 2>&1; man --warnings -l $$page 2>&1 >/dev/null); \
		[ -z "$$said" ] || { echo "$$page: $$said"; exit 1; }; \
	done; bash -n bash-completion/completions/kedr && zsh -n zsh/site-functions/_kedr && fish -n fish/vendor_completions.d/kedr.fish

docs-reference: ## make docs/reference from the commands' help
	$(GO) test ./cmd/kedr -count=1 -run TestReference -update

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

browser: ## the tests of the html report, in a browser
	@$(MAKE) --no-print-directory packages PACKAGES='$(BROWSER_PACKAGES)'
	@# A browser on a busy host can be too late for what it is asked: then once more.
	$(GO) test -tags browser -count=1 -run TestBrowser ./internal/report/page || $(GO) test -tags browser -count=1 -run TestBrowser ./internal/report/page

# One boot a kernel runs them all (test/conformance/run.sh), several kernels at a time.
conformance: packages build
	@for v in $(sort $(patsubst %:kprobe,%,$(KERNELS) $(BACKENDS))); do \
		test/modules/build.sh $$v build/modules/$$(echo $$v | tr / -) || exit 1; done
	@failed=; for v in $(filter $(ALONE),$(KERNELS)); do test/conformance/run.sh $$v || failed=1; done; \
	printf '%s\n' $(filter-out $(ALONE),$(KERNELS)) $(BACKENDS) | xargs -P $(JOBS) -n 1 test/conformance/run.sh && [ -z "$$failed" ]

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
		test/machine/run.sh -timeout 30m ./test/machine
	KEDR=$(CURDIR)/$(BIN) KEDR_KERNELS='$(KERNELS)' $(GO) test -tags machine -count=1 ./internal/trace/describe

test: unit browser check-install machine conformance traces ## all tests: unit, in a browser, what is installed, and in machines with each of $(KERNELS)

# All of it, or what BENCH names: build/bench/bench -h lists what there is.
bench: packages build ## measure what kedr costs, beside other tools: docs/bench; or look at a part, BENCH='slab|page'
	@missing=$$(for p in $(BENCH_PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing" $$missing; \
		$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi
	@mkdir -p build/bench
	$(GO) build -o build/bench/bench ./test/bench
	GOARCH=386 $(GO) build -o build/bench/bench-386 ./test/bench
	build/bench/bench $(if $(BENCH),-only '$(BENCH)',-o docs/bench) $(CORE) 6.1/i386

lint: ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l cmd internal test examples); if [ -n "$$bad" ]; then echo "not gofmt-ed:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	GOARCH=386 $(GO) vet ./cmd/... ./internal/...
	GOARCH=386 $(GO) vet -tags guest ./test/conformance
	$(GO) vet -tags guest ./test/...
	$(GO) vet -tags machine ./test/... ./internal/trace/...
	$(GO) vet -tags browser ./internal/report/page
	$(GO) tool staticcheck ./...

generate: bpf-packages ## compile the eBPF programs anew
	$(GO) generate ./internal/probe ./test/trace

# The compiler's output is not the same from version to version; what the programs do to
# the kernel is in their instructions and maps, which kedr.programs has nothing but.
check-generated: bpf-packages
	@mkdir -p build
	@cp internal/probe/kedr_bpfel.o build/committed.o; cp internal/probe/kedr_bpfel.go build/committed.go.txt; cp internal/probe/kedr.programs build/committed.programs
	$(GO) generate ./internal/probe
	@ok=0; cmp -s build/committed.programs internal/probe/kedr.programs && cmp -s build/committed.go.txt internal/probe/kedr_bpfel.go || ok=1; \
	cp build/committed.o internal/probe/kedr_bpfel.o; cp build/committed.go.txt internal/probe/kedr_bpfel.go; cp build/committed.programs internal/probe/kedr.programs; \
	if [ $$ok -ne 0 ]; then echo "the compiled programs are not those of internal/probe/bpf: make generate, and commit"; exit 1; fi

fuzz: ## fuzz each parser for half a minute
	$(GO) test -run NONE -fuzz FuzzOpen -fuzztime 30s ./internal/target
	$(GO) test -run NONE -fuzz FuzzProgram -fuzztime 30s ./internal/probe/fold
	$(GO) test -run NONE -fuzz FuzzFrames -fuzztime 30s ./internal/symbolize
	$(GO) test -run NONE -fuzz FuzzPayload -fuzztime 30s ./internal/distro
	$(GO) test -run NONE -fuzz FuzzReadFrame -fuzztime 30s ./internal/machine
	$(GO) test -run NONE -fuzz FuzzReader -fuzztime 30s ./internal/trace
	$(GO) test -run NONE -fuzz FuzzReadSymbols -fuzztime 30s ./internal/probe
	$(GO) test -run NONE -fuzz FuzzParseFormat -fuzztime 30s ./internal/trace/describe
	$(GO) test -run NONE -fuzz FuzzParse -fuzztime 30s ./internal/trace/filter
	$(GO) test -run NONE -fuzz FuzzExcerpt -fuzztime 30s ./internal/source
	$(GO) test -run NONE -fuzz FuzzParse -fuzztime 30s ./internal/suppress
	$(GO) test -run NONE -fuzz FuzzFirstError -fuzztime 30s ./internal/matrix
	$(GO) test -run NONE -fuzz FuzzRead -fuzztime 30s ./internal/report

clean: ## remove what was built here; kernels stay in the user's cache
	rm -rf bin build
