// A driver whose device is this process: memory is the host's, kernels are the emulated ones.
//
// It is as strict as the documentation lets a driver be. Streams are queues that nothing runs until something waits for
// them; then work of different streams interleaves in an order that events allow and that a test chooses, so that a
// missing event, or a staging buffer that is filled too early, shows as wrong numbers. Copies are checked against what is
// allocated, memory that was freed cannot be touched, and what is left when the context goes is an error.
#include "../../cu.h"
#include "device.h"
#include <algorithm>
#include <deque>
#include <random>
#include <set>
#include <sys/mman.h>
#include <unistd.h>

enum {
	Success = 0,
	InvalidValue = 1,
	OutOfMemory = 2,
	NotInitialized = 3,
	InvalidDevice = 101,
	InvalidContext = 201,
	InvalidPTX = 218,
	InvalidHandle = 400,
	NotFound = 500,
	NotReady = 600,
	LaunchFailed = 719,
};

namespace device {

std::recursive_mutex mutex;
std::map<void *, const char *> objects;

static thread_local bool current; // the primary context, the only one there is
static bool initialised;
static int retained;
static int lost;             // what every call returns once it is not 0
static std::string message;  // of the last error

// What tests set.
static u64 limit = 8ull << 30, others, order;
static int devices = 1, version = 12040, capability[2] = {8, 0};
static u64 launchesLeft = ~0ull;
static std::map<std::string, std::pair<u64, int>> failures; // call -> how many calls on, code
static std::map<std::string, u64> calls;

// Allocations, and what was freed of late, which can no longer be touched.
struct Block {
	u64 bytes;
	char *map;
	size_t mapped;
};
static std::map<u64, Block> memory, host;
static std::deque<std::pair<u64, Block>> freed;
static u64 held, peak;
static u64 room() { return limit - std::min(held + others, limit); } // that nobody has

struct Event {
	bool timed;
	u64 recorded, passed; // how often it was recorded, and how many of these the device has come to
};

struct Op {
	enum Kind { Work, Record, Wait } kind;
	std::string what;
	std::vector<Range> uses;
	std::function<std::string()> work;
	Event *event;
	u64 number; // of the event's recording
};

struct Stream {
	std::deque<Op> ops;
};
static std::vector<Stream *> streams;
static std::mt19937_64 dice;

static std::map<const emu::Kernel *, int> allowed; // dynamic shared memory
static const int sharedDefault = 48 << 10;
static int sharedMax = 163 << 10;

int refuse(int code, const std::string &why) {
	message = why;
	fprintf(stderr, "emulated driver: %s\n", why.c_str());
	return code;
}

bool is(void *object, const char *what) {
	auto it = objects.find(object);
	return it != objects.end() && !strcmp(it->second, what);
}

int enter(const char *call, bool context) {
	calls[call]++;
	auto f = failures.find(call);
	if (f != failures.end() && --f->second.first == 0) {
		int code = f->second.second;
		failures.erase(f);
		message = std::string(call) + " fails as the test asked for";
		return code;
	}
	if (!initialised && strcmp(call, "cuInit")) return NotInitialized;
	if (!context) return Success;
	if (!current || !retained) return refuse(InvalidContext, std::string(call) + ": no context is current on this thread");
	return lost;
}

// Where an address lies.
static std::string place(u64 at) {
	char text[200];
	auto near = [&](const std::map<u64, Block> &blocks, const char *kind) {
		auto it = blocks.upper_bound(at);
		if (it == blocks.begin()) return false;
		--it;
		const Block &b = it->second;
		if (at >= (u64)b.map + b.mapped + (64 << 10)) return false;
		if (at < it->first + b.bytes) snprintf(text, sizeof text, "byte %llu of %llu of %s", at - it->first, b.bytes, kind);
		else snprintf(text, sizeof text, "%llu bytes after the end of %llu bytes of %s", at - it->first - b.bytes, b.bytes, kind);
		return true;
	};
	for (auto &f : freed)
		if (at >= (u64)f.second.map && at < (u64)f.second.map + f.second.mapped) {
			snprintf(text, sizeof text, "memory of %llu bytes that was freed", f.second.bytes);
			return text;
		}
	if (near(memory, "device memory") || near(host, "pinned memory")) return text;
	snprintf(text, sizeof text, "address 0x%llx, which nothing has allocated", at);
	return text;
}

static bool within(const std::map<u64, Block> &blocks, Range r) {
	auto it = blocks.upper_bound(r.at);
	if (it == blocks.begin()) return false;
	--it;
	return r.at + r.bytes <= it->first + it->second.bytes;
}

bool live(Range r, std::string &why) {
	if (within(memory, r)) return true;
	why = std::to_string(r.bytes) + " bytes from " + place(r.at);
	return false;
}

// The stream behind a handle; the null stream, which would wait for all others, is not for us.
static Stream *stream(void *s) { return is(s, "stream") ? (Stream *)s : nullptr; }

int enqueue(void *s, const std::string &what, std::vector<Range> uses, std::function<std::string()> work) {
	Stream *to = stream(s);
	if (!to) return refuse(InvalidHandle, what + ": not a stream");
	to->ops.push_back({Op::Work, what, std::move(uses), std::move(work), nullptr, 0});
	return Success;
}

static bool ready(const Stream *s) {
	return !s->ops.empty() && (s->ops.front().kind != Op::Wait || s->ops.front().event->passed >= s->ops.front().number);
}

static void step(Stream *s) {
	Op op = std::move(s->ops.front());
	s->ops.pop_front();
	if (op.kind == Op::Record) op.event->passed = std::max(op.event->passed, op.number);
	if (op.kind != Op::Work || lost) return;
	std::string err = op.work();
	if (!err.empty()) lost = refuse(LaunchFailed, err);
}

// Runs streams until done() holds. Order 0 does no more than is needed: other streams lag; 1 runs all others as far as
// they come first: they lead; any other lets them take turns by chance.
static int run(Stream *wanted, const std::function<bool()> &done) {
	while (!done()) {
		std::vector<Stream *> can;
		for (Stream *s : streams)
			if (ready(s)) can.push_back(s);
		if (can.empty()) return refuse(LaunchFailed, "what is waited for never comes: every stream waits for an event");
		Stream *next = nullptr;
		if (order > 1) next = can[dice() % can.size()];
		else if (order == 1) {
			for (Stream *s : can)
				if (s != wanted) next = s;
			if (!next) next = wanted;
		} else {
			// What the wanted stream waits for, and what that waits for.
			Stream *need = wanted;
			for (size_t hops = 0; need && !ready(need) && hops < streams.size(); hops++) {
				Event *e = need->ops.empty() ? nullptr : need->ops.front().event;
				need = nullptr;
				for (Stream *s : streams)
					for (const Op &op : s->ops)
						if (op.kind == Op::Record && op.event == e) need = s;
			}
			next = need && ready(need) ? need : can[0];
		}
		step(next);
	}
	return lost;
}

static int drain() {
	return run(nullptr, [] { return std::all_of(streams.begin(), streams.end(), [](Stream *s) { return s->ops.empty(); }); });
}

// What work that has not run uses of a range; "" if nothing.
static std::string pending(Range r) {
	for (const Stream *s : streams)
		for (const Op &op : s->ops)
			for (const Range &u : op.uses)
				if (u.at < r.at + r.bytes && r.at < u.at + u.bytes) return op.what;
	return "";
}

// Memory that ends where a page begins that cannot be touched, as far as its alignment lets it, after another such page.
static int allocate(std::map<u64, Block> &blocks, size_t n, size_t alignment, u64 *p) {
	size_t page = sysconf(_SC_PAGESIZE), pages = (n + page - 1) / page * page;
	char *at = (char *)mmap(nullptr, pages + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED) return OutOfMemory;
	mprotect(at, page, PROT_NONE);
	mprotect(at + page + pages, page, PROT_NONE);
	if (n <= 64 << 20) memset(at + page, 0xff, pages); // NaN in f32, bf16 and f64
	*p = (u64)at + page + (pages - n) / alignment * alignment;
	blocks[*p] = {n, at, pages + 2 * page};
	return Success;
}

static int release(std::map<u64, Block> &blocks, u64 p, const char *call) {
	auto it = blocks.find(p);
	if (it == blocks.end()) return refuse(InvalidValue, std::string(call) + " of " + place(p));
	std::string user = pending({p, it->second.bytes});
	if (!user.empty()) return refuse(InvalidValue, std::string(call) + ": " + user + " has not run and uses it");
	madvise(it->second.map, it->second.mapped, MADV_DONTNEED);
	mprotect(it->second.map, it->second.mapped, PROT_NONE);
	freed.push_back(*it);
	if (freed.size() > 256) {
		munmap(freed.front().second.map, freed.front().second.mapped);
		freed.pop_front();
	}
	blocks.erase(it);
	return Success;
}

// What is left, in words, and forgets it.
static std::string leaks() {
	std::string text;
	auto add = [&](u64 n, const std::string &what) {
		if (n) text += (text.empty() ? "" : ", ") + std::to_string(n) + " " + what;
	};
	add(memory.size(), "allocations of " + std::to_string(held) + " bytes in all");
	add(host.size(), "allocations of pinned memory");
	std::map<std::string, u64> kinds;
	for (auto &o : objects) kinds[o.second]++;
	for (auto &k : kinds) add(k.second, k.first + "(s)");
	for (auto *blocks : {&memory, &host}) {
		for (auto &b : *blocks) munmap(b.second.map, b.second.mapped);
		blocks->clear();
	}
	for (Stream *s : streams) delete s;
	streams.clear();
	objects.clear();
	allowed.clear();
	held = 0;
	return text;
}

static std::string explain(u64 address) { return place(address); }

} // namespace device

using namespace device;

#define ENTER_ANY(call)                                \
	std::lock_guard<std::recursive_mutex> lock(mutex); \
	if (int code = enter(call, false)) return code
#define ENTER(call)                                    \
	std::lock_guard<std::recursive_mutex> lock(mutex); \
	if (int code = enter(call, true)) return code
#define API extern "C" __attribute__((visibility("default")))

// For tests. They are package emu's Device.

API void emuSetOrder(u64 o) {
	emu::order(o);
	order = o;
	dice.seed(o);
}
API void emuSetMemory(u64 bytes) { limit = bytes; }
API void emuSetOthers(u64 bytes) { others = bytes; }
API void emuSetDevices(int n) { devices = n; }
API void emuSetVersion(int v) { version = v; }
API void emuSetShared(int bytes) { sharedMax = bytes; }
API void emuSetCapability(int major, int minor) { capability[0] = major, capability[1] = minor; }
API void emuFail(const char *call, u64 n, int code) { failures[call] = {n, code}; }
API void emuLoseAfter(u64 launches) { launchesLeft = launches; }
API u64 emuCalls(const char *call) { return calls[call]; }
API u64 emuHeld() { return held; }
API u64 emuPeak(int reset) {
	u64 was = peak;
	if (reset) peak = held;
	return was;
}

API int cuInit(u32 flags) {
	ENTER_ANY("cuInit");
	if (flags) return InvalidValue;
	initialised = true;
	emu::explain = explain;
	return devices > 0 ? Success : 100;
}
API int cuDriverGetVersion(int *v) { return *v = version, Success; }
API int cuDeviceGetCount(int *n) {
	ENTER_ANY("cuDeviceGetCount");
	return *n = devices, Success;
}
API int cuDeviceGet(int *d, int ordinal) {
	ENTER_ANY("cuDeviceGet");
	return *d = ordinal, ordinal < 0 || ordinal >= devices ? InvalidDevice : Success;
}
API int cuDeviceGetName(char *s, int n, int) {
	ENTER_ANY("cuDeviceGetName");
	return snprintf(s, n, "emulated device"), Success;
}
API int cuDeviceGetAttribute(int *v, int a, int) {
	ENTER_ANY("cuDeviceGetAttribute");
	switch (a) {
	case 16: *v = 2; break;
	case 75: *v = capability[0]; break;
	case 76: *v = capability[1]; break;
	case 97: *v = sharedMax; break;
	default: return InvalidValue;
	}
	return Success;
}
API int cuDeviceTotalMem_v2(size_t *n, int) {
	ENTER_ANY("cuDeviceTotalMem");
	return *n = limit, Success;
}
API int cuDevicePrimaryCtxRetain(void **c, int device) {
	ENTER_ANY("cuDevicePrimaryCtxRetain");
	if (device < 0 || device >= devices) return InvalidDevice;
	retained++;
	return *c = &retained, Success;
}
API int cuDevicePrimaryCtxRelease_v2(int) {
	ENTER_ANY("cuDevicePrimaryCtxRelease");
	if (!retained) return refuse(InvalidContext, "the context is released twice");
	if (--retained) return Success;
	bool broken = lost;
	if (!broken) drain();
	broken = broken || lost;
	lost = 0;
	launchesLeft = ~0ull;
	std::string left = leaks();
	return left.empty() || broken ? Success : refuse(InvalidContext, "left when the context was released: " + left);
}
API int cuCtxSetCurrent(void *c) {
	ENTER_ANY("cuCtxSetCurrent");
	if (c && (c != &retained || !retained)) return refuse(InvalidContext, "a context that is not there is made current");
	return current = c != nullptr, Success;
}
API int cuMemGetInfo_v2(size_t *free, size_t *total) {
	ENTER("cuMemGetInfo");
	return *free = room(), *total = limit, Success;
}
API int cuMemAlloc_v2(u64 *p, size_t n) {
	ENTER("cuMemAlloc");
	if (!n) return refuse(InvalidValue, "cuMemAlloc of 0 bytes");
	if (n > room()) return OutOfMemory;
	int code = allocate(memory, n, 256, p);
	if (!code) held += n, peak = std::max(peak, held);
	return code;
}
API int cuMemFree_v2(u64 p) {
	ENTER("cuMemFree");
	auto it = memory.find(p);
	u64 n = it == memory.end() ? 0 : it->second.bytes;
	int code = release(memory, p, "cuMemFree");
	if (!code) held -= n;
	return code;
}
API int cuMemAllocHost_v2(void **p, size_t n) {
	ENTER("cuMemAllocHost");
	if (!n) return refuse(InvalidValue, "cuMemAllocHost of 0 bytes");
	return allocate(host, n, 64, (u64 *)p);
}
API int cuMemFreeHost(void *p) {
	ENTER("cuMemFreeHost");
	return release(host, (u64)p, "cuMemFreeHost");
}

// Checks a copy's or a fill's ranges and gives it to the stream.
static int transfer(const char *call, void *s, std::vector<Range> onDevice, std::vector<Range> pinned, std::function<void()> work) {
	std::string why;
	for (Range r : onDevice)
		if (!live(r, why)) return refuse(InvalidValue, std::string(call) + ": " + why);
	for (Range r : pinned)
		if (!within(host, r)) return refuse(InvalidValue, std::string(call) + ": the host's memory is not pinned: " + std::to_string(r.bytes) + " bytes from " + place(r.at));
	onDevice.insert(onDevice.end(), pinned.begin(), pinned.end());
	return enqueue(s, call, onDevice, [work] { return work(), std::string(); });
}

API int cuMemcpyHtoDAsync_v2(u64 d, const void *from, size_t n, void *s) {
	ENTER("cuMemcpyHtoDAsync");
	return transfer("cuMemcpyHtoDAsync", s, {{d, n}}, {{(u64)from, n}}, [=] { memcpy((void *)d, from, n); });
}
API int cuMemcpyDtoHAsync_v2(void *d, u64 from, size_t n, void *s) {
	ENTER("cuMemcpyDtoHAsync");
	return transfer("cuMemcpyDtoHAsync", s, {{from, n}}, {{(u64)d, n}}, [=] { memcpy(d, (void *)from, n); });
}
API int cuMemcpyDtoDAsync_v2(u64 d, u64 from, size_t n, void *s) {
	ENTER("cuMemcpyDtoDAsync");
	if (d < from + n && from < d + n) return refuse(InvalidValue, "cuMemcpyDtoDAsync: the two overlap");
	return transfer("cuMemcpyDtoDAsync", s, {{d, n}, {from, n}}, {}, [=] { memcpy((void *)d, (void *)from, n); });
}
API int cuMemsetD8Async(u64 d, unsigned char v, size_t n, void *s) {
	ENTER("cuMemsetD8Async");
	return transfer("cuMemsetD8Async", s, {{d, n}}, {}, [=] { memset((void *)d, v, n); });
}

API int cuStreamCreate(void **s, u32 flags) {
	ENTER("cuStreamCreate");
	if (flags != 1) return refuse(InvalidValue, "cuStreamCreate: a stream that waits for the null stream");
	streams.push_back(new Stream);
	objects[streams.back()] = "stream";
	return *s = streams.back(), Success;
}
API int cuStreamDestroy_v2(void *handle) {
	ENTER("cuStreamDestroy");
	Stream *s = stream(handle);
	if (!s) return refuse(InvalidHandle, "cuStreamDestroy: not a stream");
	if (!s->ops.empty()) return refuse(InvalidValue, "cuStreamDestroy: " + s->ops.front().what + " has not run");
	streams.erase(std::find(streams.begin(), streams.end(), s));
	objects.erase(s);
	delete s;
	return Success;
}
API int cuStreamSynchronize(void *handle) {
	ENTER("cuStreamSynchronize");
	Stream *s = stream(handle);
	if (!s) return refuse(InvalidHandle, "cuStreamSynchronize: not a stream");
	return run(s, [s] { return s->ops.empty(); });
}

// The event behind a handle; null, having told why, where it is none or was never recorded.
static Event *event(const char *call, void *e, bool recorded) {
	if (!is(e, "event")) return refuse(InvalidHandle, std::string(call) + ": not an event"), nullptr;
	if (recorded && !((Event *)e)->recorded) return refuse(InvalidHandle, std::string(call) + ": the event was never recorded"), nullptr;
	return (Event *)e;
}

API int cuStreamWaitEvent(void *handle, void *e, u32) {
	ENTER("cuStreamWaitEvent");
	Stream *s = stream(handle);
	Event *v = event("cuStreamWaitEvent", e, true);
	if (!s || !v) return InvalidHandle;
	s->ops.push_back({Op::Wait, "cuStreamWaitEvent", {}, nullptr, v, v->recorded});
	return Success;
}
API int cuEventCreate(void **e, u32 flags) {
	ENTER("cuEventCreate");
	*e = new Event{!(flags & 2), 0, 0};
	return objects[*e] = "event", Success;
}
API int cuEventDestroy_v2(void *e) {
	ENTER("cuEventDestroy");
	Event *v = event("cuEventDestroy", e, false);
	if (!v) return InvalidHandle;
	for (Stream *s : streams)
		for (const Op &op : s->ops)
			if (op.event == v) return refuse(InvalidValue, "cuEventDestroy: " + op.what + " has not run and uses it");
	objects.erase(e);
	delete v;
	return Success;
}
API int cuEventRecord(void *e, void *handle) {
	ENTER("cuEventRecord");
	Stream *s = stream(handle);
	Event *v = event("cuEventRecord", e, false);
	if (!s || !v) return InvalidHandle;
	s->ops.push_back({Op::Record, "cuEventRecord", {}, nullptr, v, ++v->recorded});
	return Success;
}
API int cuEventSynchronize(void *e) {
	ENTER("cuEventSynchronize");
	Event *v = event("cuEventSynchronize", e, true);
	if (!v) return InvalidHandle;
	Stream *with = nullptr;
	for (Stream *s : streams)
		for (const Op &op : s->ops)
			if (op.kind == Op::Record && op.event == v && op.number == v->recorded) with = s;
	return run(with, [v] { return v->passed == v->recorded; });
}
API int cuEventQuery(void *e) {
	ENTER("cuEventQuery");
	Event *v = event("cuEventQuery", e, true);
	if (!v) return InvalidHandle;
	for (Stream *s : streams)
		if (v->passed < v->recorded && ready(s)) step(s); // so that a loop of queries ends
	return lost ? lost : v->passed < v->recorded ? NotReady : Success;
}
API int cuEventElapsedTime(float *ms, void *from, void *to) {
	ENTER("cuEventElapsedTime");
	Event *a = event("cuEventElapsedTime", from, true), *b = event("cuEventElapsedTime", to, true);
	if (!a || !b) return InvalidHandle;
	if (!a->timed || !b->timed) return refuse(InvalidHandle, "cuEventElapsedTime: an event without times");
	if (a->passed < a->recorded || b->passed < b->recorded) return NotReady;
	return *ms = 1, Success;
}

API int cuModuleLoadDataEx(void **m, const char *image, u32 n, int *options, void **values) {
	ENTER("cuModuleLoadDataEx");
	if (!strstr(image, ".version")) {
		for (u32 i = 0; i + 1 < n; i++)
			if (options[i] == 5 && options[i + 1] == 6) snprintf((char *)values[i], (size_t)values[i + 1], "ptxas: line 1: no .version");
		return refuse(InvalidPTX, "a PTX without .version");
	}
	*m = strdup(image);
	return objects[*m] = "module", Success;
}
API int cuModuleUnload(void *m) {
	ENTER("cuModuleUnload");
	if (!is(m, "module")) return refuse(InvalidHandle, "cuModuleUnload: not a module");
	for (Stream *s : streams)
		if (!s->ops.empty()) return refuse(InvalidValue, "cuModuleUnload: " + s->ops.front().what + " has not run");
	objects.erase(m);
	return free(m), Success;
}
API int cuModuleGetFunction(void **f, void *m, const char *name) {
	ENTER("cuModuleGetFunction");
	if (!is(m, "module")) return refuse(InvalidHandle, "cuModuleGetFunction: not a module");
	if (!strstr((const char *)m, (std::string(".entry ") + name + "(").c_str())) return refuse(NotFound, std::string("the PTX has no kernel ") + name);
	const emu::Kernel *k = emu::find(name);
	if (!k) return refuse(NotFound, std::string("no source of kernel ") + name);
	return *f = (void *)k, Success;
}
API int cuFuncSetAttribute(void *f, int attribute, int n) {
	ENTER("cuFuncSetAttribute");
	const emu::Kernel *k = (const emu::Kernel *)f;
	if (attribute != 8 || n < 0 || n > sharedMax) return refuse(InvalidValue, std::string(k->name) + ": " + std::to_string(n) + " bytes of shared memory allowed, at most " + std::to_string(sharedMax));
	return allowed[k] = n, Success;
}
API int cuLaunchKernel(void *f, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared, void *s, void **params, void **extra) {
	ENTER("cuLaunchKernel");
	const emu::Kernel *k = (const emu::Kernel *)f;
	std::string name = k->name;
	auto number = [](u64 n) { return std::to_string(n); };
	if (params || !extra || extra[0] != (void *)1 || extra[2] != (void *)2 || extra[4]) return refuse(InvalidValue, name + ": not the buffer form of arguments");
	size_t size = *(size_t *)extra[3];
	if (size != k->size) return refuse(InvalidValue, name + ": " + number(size) + " bytes of arguments, the kernel takes " + number(k->size));
	if (!gx || !gy || !gz || gx > 0x7fffffff || gy > 65535 || gz > 65535) return refuse(InvalidValue, name + ": a grid of " + number(gx) + " x " + number(gy) + " x " + number(gz));
	if (by != 1 || bz != 1 || !bx || (int)bx > k->threads) return refuse(InvalidValue, name + ": blocks of " + number(bx) + " threads, at most " + number(k->threads));
	int most = allowed.count(k) ? std::max(allowed[k], sharedDefault) : sharedDefault;
	if ((int)shared > most) return refuse(InvalidValue, name + ": " + number(shared) + " bytes of shared memory, " + number(most) + " are allowed");
	if (launchesLeft-- == 0) return lost = refuse(LaunchFailed, name + ": the device is lost, as the test asked for");
	std::vector<char> args((char *)extra[1], (char *)extra[1] + size);
	std::vector<Range> uses;
	for (int offset : emu::pointers(k)) {
		u64 p = *(u64 *)(args.data() + offset);
		std::string why;
		if (!p) continue;
		if (!within(memory, {p, 1})) return refuse(InvalidValue, name + ": the pointer at byte " + number(offset) + " of its arguments is " + place(p));
		auto it = --memory.upper_bound(p);
		uses.push_back({it->first, it->second.bytes});
	}
	return enqueue(s, "kernel " + name, uses, [=]() mutable {
		u32 grid[3] = {gx, gy, gz};
		return emu::launch(k, grid, bx, shared, args.data());
	});
}
API int cuGetErrorName(int e, const char **s) {
	static const std::map<int, const char *> names = {{InvalidValue, "CUDA_ERROR_INVALID_VALUE"}, {OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
		{NotInitialized, "CUDA_ERROR_NOT_INITIALIZED"}, {100, "CUDA_ERROR_NO_DEVICE"}, {InvalidDevice, "CUDA_ERROR_INVALID_DEVICE"},
		{InvalidContext, "CUDA_ERROR_INVALID_CONTEXT"}, {InvalidPTX, "CUDA_ERROR_INVALID_PTX"}, {InvalidHandle, "CUDA_ERROR_INVALID_HANDLE"},
		{NotFound, "CUDA_ERROR_NOT_FOUND"}, {NotReady, "CUDA_ERROR_NOT_READY"}, {LaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
		{803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}};
	auto it = names.find(e);
	if (it == names.end()) return *s = nullptr, InvalidValue;
	return *s = it->second, Success;
}
API int cuGetErrorString(int, const char **s) { return *s = message.c_str(), Success; }
