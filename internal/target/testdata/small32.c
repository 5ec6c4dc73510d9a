/* A module for 32-bit x86 as far as target looks; made without kernel headers. */
#define SECTION(name) __attribute__((section(name), used))

SECTION(".modinfo") static const char info[] = "vermagic=6.1.0-686-pae SMP \0depends=";
/* Older kernels have the name only in struct module, 12 bytes in. */
SECTION(".gnu.linkonce.this_module") static struct { int state; void *list[2]; char name[60]; } this = { .name = "small32" };

void *vmalloc(unsigned long n);
void *kept;

static inline __attribute__((always_inline)) void *grab(unsigned long n)
{
	kept = vmalloc(n);
	return kept;
}

__attribute__((noinline, noclone)) static void *jumps(unsigned long n)
{
	return vmalloc(n);
}

/* To a function of the same section: a jump without a relocation. */
__attribute__((noinline, noclone)) static void *hops(unsigned long n)
{
	return jumps(n + 1);
}

SECTION(".init.text") int init_module(void)
{
	grab(16);
	return hops(32) == kept;
}

SECTION(".text") void cleanup_module(void)
{
	grab(64);
	kept = 0;
}
