// Blocks and threads on the host. Each thread of a block is a fibre; a block runs on one thread of the host.
// Whatever brings threads together (barriers, shuffles, matrix instructions) is a rendezvous: a fibre that
// arrives gives way to the others until all are there. Threads that never come together are an error.
//
// Threads of a block run in an order that changes from block to block and is never the order of their numbers
// throughout, so that a missing barrier shows. Shared memory starts as 0xff bytes (a NaN in every float format
// used here) and is surrounded by guard bytes.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace shim {

struct uint3 {
  unsigned x, y, z;
};
struct Block;

// A place in a kernel's source.
struct Site {
  const char* file;
  int line;
  const char* what;
};

// A copy that was started and is not yet waited for.
struct AsyncCopy {
  void* to;
  const void* from;
  unsigned bytes;  // copied
  unsigned zeros;  // written behind them
};

// A product of a warpgroup that was started and is not yet waited for (see hopper.h).
struct Product {
  void* d;
  const uint32_t* a;  // four registers, or null for a matrix in shared memory
  uint64_t a_matrix, b_matrix;
  bool add;         // to the sums
  bool b_is_rows;   // over which is summed
  int sums;         // of a lane
  void (*run)(void* const* slots, int index);
};

// The registers that products in flight add to; they hold NaN meanwhile.
struct Sums {
  void* registers;
  int products;  // in flight
  int count;
  uint32_t values[64];
};

enum class State : uint8_t { Ready, AtBarrier, AtCollective, Asleep, GivingWay, Done };

constexpr int MAX_COPIES = 512;
constexpr int MAX_GROUPS = 16;
constexpr int MAX_PRODUCTS = 16;
constexpr int MAX_SUMS = 4;
constexpr int MAX_BARRIERS = 32;

// One thread of a block.
struct Fibre {
  void* stack_pointer;
  uint3 thread;
  unsigned linear;
  State state;
  Site site;          // where it waits
  unsigned mask;      // lanes it waits for
  void* slot;         // what it brings to a collective
  Block* block;
  int copies, groups;  // started copies, and how many of them each committed group had
  AsyncCopy copy[MAX_COPIES];
  int group[MAX_GROUPS];
  int products, product_groups, due;  // the last: products that a wait must see computed
  Product product[MAX_PRODUCTS];
  int product_group[MAX_GROUPS];
  Sums sums[MAX_SUMS];
  bool fenced;
  unsigned started;  // products in all
  int barriers;      // initialised and not yet fenced
  uint64_t* barrier[MAX_BARRIERS];
};

struct Launch {
  uint3 grid, block;
  unsigned shared_bytes;
};

struct Block {
  const Launch* launch;
  uint3 index;
};

extern __thread Fibre* current;

// A kernel by its name.
using Invoke = void (*)(void (*kernel)(), const uint64_t* arguments);
struct Kernel {
  const char* name;
  int max_threads;
  void (*function)();
  Invoke invoke;
  const char* kinds;  // one letter a parameter: p pointer, i int, u unsigned, l int64_t, f float
  const Kernel* next;
};
void add(Kernel* kernel);

// Ends the block with an error; does not come back.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

void sync_block(Site site);
unsigned char* dynamic_shared();
void* static_shared(const char* file, int line, size_t bytes);
void check_shared(const void* address, size_t bytes, const char* what);
void check_aligned(const void* address, size_t bytes, const char* what);

// Brings the lanes of `mask` together: when the last has arrived, `complete` sees the slots of all 32 lanes (null
// for those outside of the mask) once.
void collective(unsigned mask, Site site, void* slot, void (*complete)(void* const* slots));

// Asynchronous copies to shared memory; each is performed when it is waited for, until then its target is NaN.
void copy_async(void* to, const void* from, unsigned bytes, unsigned zeros);
void copy_commit();
void copy_wait(int groups_left);

// Sleeps until `wake` of the same address.
void sleep(const void* address, Site site);
void wake(const void* address);
// Barriers of some of a block's warps: one ends when `threads` threads have come.
void part_barrier(int number, int threads, bool wait, Site site);
// In every other block: lets all others go on first, as far as they can; in some of them without a bulk copy that is under
// way, in some with it.
void give_way(Site site);

// A copy that arrives when no thread can go on without it, in an order that changes from block to block; until then
// its target is NaN. `arrived` is called with `barrier` and `bytes`.
void copy_bulk(void* to, const void* from, unsigned bytes, uint64_t* barrier, void (*arrived)(uint64_t*, unsigned));

// What threads write to dynamic shared memory is known to products once they have published it.
void publish_shared();
// Fails where a bulk copy to these bytes is under way, or a thread has written them and not published them.
void check_readable(const void* address, size_t bytes, const char* what);

// ---- arguments -------------------------------------------------------------------------------------------

template <class T>
struct Kind;
template <class T>
struct Kind<T*> {
  static constexpr char LETTER = 'p';
};
template <>
struct Kind<int> {
  static constexpr char LETTER = 'i';
};
template <>
struct Kind<unsigned> {
  static constexpr char LETTER = 'u';
};
template <>
struct Kind<int64_t> {
  static constexpr char LETTER = 'l';
};
template <>
struct Kind<float> {
  static constexpr char LETTER = 'f';
};

template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
  using type = Indices<I...>;
};

template <class T>
inline T argument(const uint64_t* slot) {
  T value;
  __builtin_memcpy(&value, slot, sizeof(value));
  return value;
}

template <class... A, int... I>
inline void call(void (*kernel)(A...), const uint64_t* arguments, Indices<I...>) {
  kernel(argument<A>(arguments + I)...);
}

template <class... A>
inline void invoke(void (*kernel)(), const uint64_t* arguments) {
  call(reinterpret_cast<void (*)(A...)>(kernel), arguments, typename MakeIndices<sizeof...(A)>::type());
}

struct Registered {
  Kernel kernel;
  template <class... A>
  Registered(const char* name, int max_threads, void (*function)(A...)) {
    static const char kinds[] = {Kind<A>::LETTER..., 0};
    kernel = {name, max_threads, reinterpret_cast<void (*)()>(function), &invoke<A...>, kinds, nullptr};
    add(&kernel);
  }
};

// ---- collectives -----------------------------------------------------------------------------------------

template <class T, class From>
inline T shuffle(unsigned mask, T x, From from, Site site = {__builtin_FILE(), __builtin_LINE(), "shuffle"}) {
  struct Slot {
    T value, result;
    int from;
  } slot = {x, x, from(int(current->linear % 32))};
  collective(mask, site, &slot, [](void* const* slots) {
    for (int lane = 0; lane < 32; lane++) {
      Slot* slot = static_cast<Slot*>(slots[lane]);
      if (!slot) continue;
      if (!slots[slot->from]) fail("shuffle: lane %d reads lane %d, which takes no part", lane, slot->from);
      slot->result = static_cast<Slot*>(slots[slot->from])->value;
    }
  });
  return slot.result;
}

unsigned ballot(unsigned mask, bool predicate, Site site = {__builtin_FILE(), __builtin_LINE(), "vote"});

template <class T, class Update>
inline T atomic_update(T* p, Update update) {
  T old, next;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do {
    next = update(old);
  } while (!__atomic_compare_exchange(p, &old, &next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace shim
using shim::uint3;
