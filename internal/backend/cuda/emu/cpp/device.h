// What the emulated driver shares with the emulated cublasLt.
#pragma once
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

typedef unsigned long long u64;

namespace device {

// A piece of memory that work reads or writes.
struct Range {
	u64 at, bytes;
};

extern std::recursive_mutex mutex;

// Counts a call, and says with which code it fails: as a test asked for, without a current context, or after the device
// was lost. 0: it does not.
int enter(const char *call, bool context);

// Tells what is wrong on stderr and in cuGetErrorString.
int refuse(int code, const std::string &why);

// Whether a range lies in one live allocation of the device; if not, why says where it lies.
bool live(Range r, std::string &why);

// Gives work to a stream, which runs it when something waits for it. Work returns what went wrong; then the device is lost.
int enqueue(void *stream, const std::string &what, std::vector<Range> uses, std::function<std::string()> work);

// Objects by what they are, for the report of leaks.
extern std::map<void *, const char *> objects;
bool is(void *object, const char *what);

} // namespace device
