package probe

//go:generate sh -c "go tool bpf2go -target bpfel -cflags \"-O2 -mcpu=v3 -Wall -Werror -I/usr/include/$(gcc -print-multiarch)\" -type target -type load -type object -type cell -type wrong -type stack -type tally -type party -type sym -type query -type site -type trace_event -type trace_capture -type trace_count kedr bpf/kedr.bpf.c"
//go:generate go run ./object/pack kedr_bpfel.o kedr.programs
