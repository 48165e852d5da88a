// A driver whose device is this process: memory is the host's, kernels are the emulated ones, work is done when it is given.
#include "../../cu.h"
#include <map>
#include <set>
#include <sys/mman.h>
#include <unistd.h>

namespace {

enum { Success = 0, InvalidValue = 1, OutOfMemory = 2, InvalidContext = 201, NotFound = 500, LaunchFailed = 719 };

thread_local void *current;
std::map<u64, size_t> memory;
u64 held, limit = 8ull << 30;
std::string message;

int refuse(int code, const std::string &why) {
	message = why;
	fprintf(stderr, "emulated driver: %s\n", why.c_str());
	return code;
}

} // namespace

#define NEED_CONTEXT \
	if (!current) return InvalidContext

extern "C" {

// For tests.
void emuSetOrder(u64 o) { emu::order(o); }
void emuSetMemory(u64 bytes) { limit = bytes; }
u64 emuHeld() { return held; }
u64 emuArgumentsSize(const char *kernel) {
	const emu::Kernel *k = emu::find(kernel);
	return k ? k->size : 0;
}

int cuInit(u32 flags) { return flags ? InvalidValue : Success; }
int cuDriverGetVersion(int *v) { return *v = 12040, Success; }
int cuDeviceGetCount(int *n) { return *n = 1, Success; }
int cuDeviceGet(int *d, int ordinal) { return *d = ordinal, ordinal ? 101 : Success; }
int cuDeviceGetName(char *s, int n, int) { return snprintf(s, n, "emulated device"), Success; }
int cuDeviceGetAttribute(int *v, int a, int) {
	switch (a) {
	case 16: *v = 2; break;
	case 75: *v = 8; break;
	case 76: *v = 0; break;
	case 97: *v = 163 << 10; break;
	default: return InvalidValue;
	}
	return Success;
}
int cuDeviceTotalMem_v2(size_t *n, int) { return *n = limit, Success; }
int cuDevicePrimaryCtxRetain(void **c, int) { return *c = &memory, Success; }
int cuDevicePrimaryCtxRelease_v2(int) { return Success; }
int cuCtxSetCurrent(void *c) { return current = c, Success; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
	NEED_CONTEXT;
	return *free = limit - held, *total = limit, Success;
}
int cuMemAlloc_v2(u64 *p, size_t n) {
	NEED_CONTEXT;
	if (!n) return InvalidValue;
	if (held + n > limit) return OutOfMemory;
	// What is allocated ends where a page begins that cannot be touched, as far as its alignment lets it.
	size_t page = sysconf(_SC_PAGESIZE), pages = (n + page - 1) / page * page;
	char *at = (char *)mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED) return OutOfMemory;
	mprotect(at + pages, page, PROT_NONE);
	memset(at, 0xff, pages);
	*p = (u64)at + (pages - n) / 256 * 256;
	memory[*p] = n;
	held += n;
	return Success;
}
int cuMemFree_v2(u64 p) {
	NEED_CONTEXT;
	auto it = memory.find(p);
	if (it == memory.end()) return refuse(InvalidValue, "cuMemFree of what was not allocated");
	size_t page = sysconf(_SC_PAGESIZE), pages = (it->second + page - 1) / page * page;
	munmap((void *)(p / page * page), pages + page);
	held -= it->second;
	memory.erase(it);
	return Success;
}
int cuMemAllocHost_v2(void **p, size_t n) {
	NEED_CONTEXT;
	return *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096), *p ? Success : OutOfMemory;
}
int cuMemFreeHost(void *p) { return free(p), Success; }
int cuMemcpyHtoDAsync_v2(u64 d, const void *s, size_t n, void *) {
	NEED_CONTEXT;
	return memcpy((void *)d, s, n), Success;
}
int cuMemcpyDtoHAsync_v2(void *d, u64 s, size_t n, void *) {
	NEED_CONTEXT;
	return memcpy(d, (void *)s, n), Success;
}
int cuMemcpyDtoDAsync_v2(u64 d, u64 s, size_t n, void *) {
	NEED_CONTEXT;
	return memcpy((void *)d, (void *)s, n), Success;
}
int cuMemsetD8Async(u64 d, unsigned char v, size_t n, void *) {
	NEED_CONTEXT;
	return memset((void *)d, v, n), Success;
}
int cuStreamCreate(void **s, u32) { return *s = malloc(1), Success; }
int cuStreamDestroy_v2(void *s) { return free(s), Success; }
int cuStreamSynchronize(void *) { return Success; }
int cuStreamWaitEvent(void *, void *, u32) { return Success; }
int cuEventCreate(void **e, u32) { return *e = malloc(1), Success; }
int cuEventDestroy_v2(void *e) { return free(e), Success; }
int cuEventRecord(void *, void *) { return Success; }
int cuEventSynchronize(void *) { return Success; }
int cuEventQuery(void *) { return Success; }
int cuEventElapsedTime(float *ms, void *, void *) { return *ms = 1, Success; }
int cuModuleLoadDataEx(void **m, const char *image, u32, int *, void **) {
	NEED_CONTEXT;
	if (!strstr(image, ".version")) return 218;
	return *m = strdup(image), Success;
}
int cuModuleUnload(void *m) { return free(m), Success; }
int cuModuleGetFunction(void **f, void *m, const char *name) {
	NEED_CONTEXT;
	if (!strstr((const char *)m, (std::string(".entry ") + name + "(").c_str())) return refuse(NotFound, std::string("the PTX has no kernel ") + name);
	const emu::Kernel *k = emu::find(name);
	if (!k) return refuse(NotFound, std::string("no source of kernel ") + name);
	return *f = (void *)k, Success;
}
int cuFuncSetAttribute(void *, int, int) { return Success; }
int cuLaunchKernel(void *f, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared, void *, void **params, void **extra) {
	NEED_CONTEXT;
	const emu::Kernel *k = (const emu::Kernel *)f;
	std::string name = k->name;
	if (params || !extra || extra[0] != (void *)1 || extra[2] != (void *)2 || extra[4]) return refuse(InvalidValue, name + ": not the buffer form of arguments");
	size_t size = *(size_t *)extra[3];
	if (size != k->size) return refuse(InvalidValue, name + ": " + std::to_string(size) + " bytes of arguments, the kernel takes " + std::to_string(k->size));
	if (!gx || !gy || !gz || gy > 65535 || gz > 65535) return refuse(InvalidValue, name + ": a grid of " + std::to_string(gx) + " x " + std::to_string(gy) + " x " + std::to_string(gz));
	if (by != 1 || bz != 1 || !bx || (int)bx > k->threads) return refuse(InvalidValue, name + ": blocks of " + std::to_string(bx) + " threads, at most " + std::to_string(k->threads));
	u32 grid[3] = {gx, gy, gz};
	std::string err = emu::launch(k, grid, bx, shared, extra[1]);
	return err.empty() ? Success : refuse(LaunchFailed, err);
}
int cuGetErrorName(int e, const char **s) { return *s = e == OutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR", Success; }
int cuGetErrorString(int, const char **s) { return *s = message.c_str(), Success; }
}
