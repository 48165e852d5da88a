#include "../../cu.h"
#include <algorithm>
#include <deque>
#include <csetjmp>
#include <csignal>
#include <pthread.h>
#include <random>
#include <sys/mman.h>
#include <unistd.h>

namespace emu {

State now;
static Kernel *kernels;
static unsigned long long turns;

Kernel::Kernel(const char *name, size_t size, int threads, void (*run)(const void *))
    : name(name), size(size), threads(threads), run(run), next(kernels) {
	kernels = this;
}

const Kernel *find(const char *name) {
	for (const Kernel *k = kernels; k; k = k->next)
		if (!strcmp(k->name, name)) return k;
	return nullptr;
}

static Pointers *tables;

Pointers::Pointers(const char *kernel, std::vector<int> offsets) : kernel(kernel), offsets(std::move(offsets)), next(tables) { tables = this; }

const std::vector<int> &pointers(const Kernel *k) {
	for (const Pointers *p = tables; p; p = p->next)
		if (!strcmp(p->kernel, k->name)) return p->offsets;
	fprintf(stderr, "emu: no table of the arguments of %s\n", k->name);
	abort();
}

std::string (*explain)(u64 address);

void order(unsigned long long o) { turns = o; }

// switch_to saves the registers that a call keeps on the stack, leaves the stack pointer in *from and goes on at to.
#if defined(__x86_64__)
extern "C" void emu_switch(void **from, void *to);
asm(".text\n.globl emu_switch\n.hidden emu_switch\nemu_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
static const int saved = 6;
#elif defined(__aarch64__)
extern "C" void emu_switch(void **from, void *to);
asm(".text\n.globl emu_switch\n.hidden emu_switch\nemu_switch:\n"
    "sub sp,sp,#160\nstp x19,x20,[sp]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\nstp x25,x26,[sp,#48]\n"
    "stp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\nstp d8,d9,[sp,#96]\nstp d10,d11,[sp,#112]\nstp d12,d13,[sp,#128]\nstp d14,d15,[sp,#144]\n"
    "mov x9,sp\nstr x9,[x0]\nmov sp,x1\n"
    "ldp x19,x20,[sp]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\nldp x25,x26,[sp,#48]\n"
    "ldp x27,x28,[sp,#64]\nldp x29,x30,[sp,#80]\nldp d8,d9,[sp,#96]\nldp d10,d11,[sp,#112]\nldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\n"
    "add sp,sp,#160\nret\n");
#else
#error "the emulation knows x86-64 and arm64"
#endif

struct Copy {
	void *to;
	const void *from;
	bool valid;
};

struct Fiber {
	char *stack;
	void *sp;
	Wait wait;
	std::vector<Copy> open;              // copies of no group yet
	std::deque<std::vector<Copy>> under; // groups under way
};

static const size_t stackSize = 256 << 10;
static std::vector<Fiber> fibers;
static void *scheduler;
static const Kernel *kernel;
static const void *arguments;

static void body() {
	kernel->run(arguments);
	yield(Done);
	abort();
}

void yield(Wait w) {
	Fiber &f = fibers[now.thread];
	f.wait = w;
	emu_switch(&f.sp, scheduler);
}

static void start(Fiber &f) {
	if (!f.stack) {
		f.stack = (char *)mmap(nullptr, stackSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		mprotect(f.stack, sysconf(_SC_PAGESIZE), PROT_NONE);
	}
	f.wait = Running;
	f.open.clear();
	f.under.clear();
	void **top = (void **)(f.stack + stackSize);
#if defined(__x86_64__)
	*--top = nullptr;       // where body would return to; keeps the stack aligned as after a call
	*--top = (void *)body;
	for (int i = 0; i < saved; i++) *--top = nullptr;
#else
	top -= 20;
	memset(top, 0, 160);
	top[11] = (void *)body; // x30
#endif
	f.sp = top;
}

void copy_later(void *to, const void *from, bool valid) {
	if ((u64)to % 16 || (valid && (u64)from % 16)) {
		fprintf(stderr, "emu: cp.async from %p to %p, not multiples of 16\n", from, to);
		abort();
	}
	if (turns == 1) { // as early as it may happen; else as late
		valid ? (void)memcpy(to, from, 16) : (void)memset(to, 0, 16);
		return;
	}
	fibers[now.thread].open.push_back({to, from, valid});
}

void commit() {
	Fiber &f = fibers[now.thread];
	f.under.push_back(std::move(f.open));
	f.open.clear();
}

void wait_copies(int groups) {
	Fiber &f = fibers[now.thread];
	for (; (int)f.under.size() > groups; f.under.pop_front())
		for (const Copy &c : f.under.front()) c.valid ? (void)memcpy(c.to, c.from, 16) : (void)memset(c.to, 0, 16);
}

static std::mt19937_64 random;

// Lets the threads from..to-1, a warp, take turns: once, or in an order other than ascending until all of them wait for
// others, so that a warp is as far ahead of the others as barriers let it. It tells whether anything ran.
static bool runWarp(int from, int to) {
	int turn[32], n = to - from;
	for (int i = 0; i < n; i++) turn[i] = turns == 1 ? to - 1 - i : from + i;
	for (bool any = false;;) {
		if (turns > 1) std::shuffle(turn, turn + n, random);
		bool moved = false;
		for (int i = 0; i < n; i++) {
			if (fibers[turn[i]].wait != Running) continue;
			moved = true;
			now.thread = turn[i];
			emu_switch(&scheduler, fibers[turn[i]].sp);
		}
		int waiting = 0;
		for (int i = from; i < to; i++) waiting += fibers[i].wait == Warp;
		if (waiting == 32) { // a warp is whole in its operations
			moved = true;
			for (int i = from; i < to; i++) fibers[i].wait = Running;
		}
		any |= moved;
		if (!moved || turns == 0) return any;
	}
}

static std::string runBlock(int threads) {
	static std::vector<int> warps;
	warps.clear();
	for (int w = 0; w < threads; w += 32) warps.push_back(w);
	if (turns == 1) std::reverse(warps.begin(), warps.end());
	if (turns > 1) random.seed(turns);
	for (int i = 0; i < threads; i++) start(fibers[i]);
	for (;;) {
		bool moved = false;
		if (turns > 1) std::shuffle(warps.begin(), warps.end(), random);
		for (int w : warps) moved |= runWarp(w, std::min(w + 32, threads));
		int done = 0, block = 0;
		for (int i = 0; i < threads; i++) done += fibers[i].wait == Done, block += fibers[i].wait == Block;
		if (done == threads) return "";
		if (block == threads) {
			moved = true;
			for (int i = 0; i < threads; i++) fibers[i].wait = Running;
		}
		if (!moved) {
			char text[200];
			snprintf(text, sizeof text, "kernel %s, block (%d, %d, %d): of %d threads %d wait at a block's barrier and %d have ended, the others wait for their warp",
			         kernel->name, now.block[0], now.block[1], now.block[2], threads, block, done);
			return text;
		}
	}
}

static std::string runGrid(const unsigned grid[3], unsigned threads, size_t whole) {
	for (unsigned z = 0; z < grid[2]; z++)
		for (unsigned y = 0; y < grid[1]; y++)
			for (unsigned x = 0; x < grid[0]; x++) {
				now.block[0] = x, now.block[1] = y, now.block[2] = z;
				memset(now.shared, 0xff, whole);
				std::string err = runBlock(threads);
				if (!err.empty()) return err;
			}
	return "";
}

// While a kernel runs on this thread a fault leads out of it; faults of other threads are for whoever had the signal.
static volatile bool inside;
static pthread_t runner;
static sigjmp_buf out;
static void *volatile faulted;
// Of memory that is not there; and of what the compiler puts before an access that is not aligned.
static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
static struct sigaction others[4];

static void fault(int signal, siginfo_t *info, void *context) {
	if (inside && pthread_equal(runner, pthread_self())) {
		faulted = info->si_addr;
		siglongjmp(out, signal);
	}
	const struct sigaction &other = others[std::find(signals, signals + 4, signal) - signals];
	if (other.sa_flags & SA_SIGINFO) other.sa_sigaction(signal, info, context);
	else abort();
}

std::string launch(const Kernel *k, const unsigned grid[3], unsigned threads, size_t shared, const void *args) {
	// Shared memory ends where a page begins that cannot be touched.
	static char *area;
	static const size_t room = 256 << 10;
	if (!area) {
		size_t page = sysconf(_SC_PAGESIZE);
		area = (char *)mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		mprotect(area + room, page, PROT_NONE);
	}
	kernel = k;
	arguments = args;
	now.threads = threads;
	if (fibers.size() < threads) fibers.resize(threads);
	size_t whole = (shared + 15) / 16 * 16;
	now.shared = area + room - whole;
	for (int i = 0; i < 3; i++) now.blocks[i] = grid[i];

	struct sigaction mine = {};
	mine.sa_sigaction = fault;
	mine.sa_flags = SA_SIGINFO | SA_ONSTACK;
	for (int i = 0; i < 4; i++) sigaction(signals[i], &mine, &others[i]);
	std::string err;
	runner = pthread_self();
	int signal = sigsetjmp(out, 1);
	if (!signal) {
		inside = true;
		err = runGrid(grid, threads, whole);
	} else {
		char text[200];
		snprintf(text, sizeof text, "kernel %s, block (%d, %d, %d), thread %d touches ", k->name, now.block[0], now.block[1], now.block[2], now.thread);
		u64 at = (u64)faulted;
		bool beyond = at >= (u64)area + room && at < (u64)area + room + sysconf(_SC_PAGESIZE);
		bool misaligned = signal == SIGILL || signal == SIGTRAP;
		err = text + (misaligned ? "memory at an address that is no multiple of what it takes at once" : beyond ? "what lies after its shared memory" : explain(at));
	}
	inside = false;
	for (int i = 0; i < 4; i++) sigaction(signals[i], &others[i], nullptr);
	return err;
}

} // namespace emu
