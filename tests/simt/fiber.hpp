/* A function on a stack of its own, which can stop in the middle and go on later. */
#ifndef DRAFTMETA_FIBER_HPP
#define DRAFTMETA_FIBER_HPP

#include <cstddef>

#ifdef __x86_64__
/* Where something stopped: its stack pointer, all else is on the stack. */
using Place = void *;
#else
#include <ucontext.h>
using Place = ucontext_t;
#endif

/* One thread at a time may run fibers, and no fiber runs another. */
class Fiber
{
  public:
    Fiber() = default;
    ~Fiber();
    Fiber(const Fiber &) = delete;
    Fiber &operator=(const Fiber &) = delete;

    /* The next resume begins entry. The fiber must be new, or its last entry must have returned. */
    void start(void (*function)());
    /* Runs the fiber until it suspends itself or entry returns. */
    void resume();
    /* By code that runs on a fiber: back to where it was resumed. */
    static void suspend();

  private:
    static void main();
    void leave(bool finished);

    char *stack = nullptr; /* from the first start on */
    void (*entry)() = nullptr;
    Place place = {};
    void *fake_stack = nullptr; /* the address sanitizer's, while the fiber does not run */
};

#endif
