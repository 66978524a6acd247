/* Fibers: a switch of stacks, which the address sanitizer is told of. */
#include "fiber.hpp"

#include <cstdio>
#include <cstdlib>

#include <sys/mman.h>

namespace
{

/* Reserved; only what is used becomes memory. The lowest page is a guard. */
constexpr std::size_t stack_bytes = 256 << 10, guard_bytes = 4 << 10;

/* The fiber that runs, and the thread that resumed it: where it stopped, and its stack. */
Fiber *current;
Place resumer;
const void *resumer_bottom;
std::size_t resumer_bytes;

} // namespace

/* ---- The sanitizer ---- */

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#define UNDER_ASAN __has_feature(address_sanitizer)
#else
#define UNDER_ASAN 0
#endif

#if UNDER_ASAN
#include <sanitizer/common_interface_defs.h>

/* Before a switch, to the stack from bottom; what is saved in *fake_stack is for the return. */
static void announce_switch(void **fake_stack, const void *bottom, std::size_t bytes)
{
    __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
}

/* After a switch: gives the stack that it came from. */
static void announce_arrival(void *fake_stack, const void **from_bottom, std::size_t *from_bytes)
{
    __sanitizer_finish_switch_fiber(fake_stack, from_bottom, from_bytes);
}
#else
static void announce_switch(void **, const void *, std::size_t)
{
}

static void announce_arrival(void *, const void **, std::size_t *)
{
}
#endif

/* ---- The switch ---- */

#ifdef __x86_64__
extern "C" void draftmeta_fiber_switch(Place *save, Place to);

/* The registers that a call preserves go onto the old stack and come from the new one. */
__asm__(".text\n"
        ".hidden draftmeta_fiber_switch\n"
        ".type draftmeta_fiber_switch, @function\n"
        "draftmeta_fiber_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size draftmeta_fiber_switch, . - draftmeta_fiber_switch\n");

static void switch_places(Place &save, Place &to)
{
    draftmeta_fiber_switch(&save, to);
}

/* A stack as a switch leaves it: six registers, where to return to, and that function's own return address. */
static void make_place(Place &place, char *stack, void (*function)())
{
    void **top = reinterpret_cast<void **>(stack + stack_bytes);
    for (int i = 1; i <= 8; i++)
        top[-i] = nullptr;
    top[-2] = reinterpret_cast<void *>(function);
    place = top - 8;
}
#else
static void switch_places(Place &save, Place &to)
{
    swapcontext(&save, &to);
}

static void make_place(Place &place, char *stack, void (*function)())
{
    getcontext(&place);
    place.uc_stack.ss_sp = stack;
    place.uc_stack.ss_size = stack_bytes;
    place.uc_link = nullptr;
    makecontext(&place, function, 0);
}
#endif

/* ---- Fibers ---- */

static char *map_stack()
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard_bytes, PROT_NONE)) {
        std::perror("simt: no memory for a stack");
        std::abort();
    }
    return static_cast<char *>(memory);
}

Fiber::~Fiber()
{
    if (stack)
        munmap(stack, stack_bytes);
}

void Fiber::start(void (*function)())
{
    if (!stack)
        stack = map_stack();
    entry = function;
    make_place(place, stack, &Fiber::main);
}

void Fiber::main()
{
    announce_arrival(nullptr, &resumer_bottom, &resumer_bytes);
    Fiber *self = current;
    self->entry();
    self->leave(true);
}

void Fiber::resume()
{
    void *fake = nullptr;
    current = this;
    announce_switch(&fake, stack, stack_bytes);
    switch_places(resumer, place);
    announce_arrival(fake, nullptr, nullptr);
}

void Fiber::leave(bool finished)
{
    announce_switch(finished ? nullptr : &fake_stack, resumer_bottom, resumer_bytes);
    switch_places(place, resumer);
    announce_arrival(fake_stack, &resumer_bottom, &resumer_bytes);
}

void Fiber::suspend()
{
    current->leave(false);
}
