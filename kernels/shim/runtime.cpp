#include "runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <mutex>
#include <new>

#include "launch.h"
#include "switch.h"

namespace shim {
namespace {

constexpr size_t STACK_BYTES = 256 << 10;
constexpr int MAX_THREADS = 1024;
constexpr size_t GUARD_BYTES = 1024;
constexpr size_t SHARED_BYTES = 227 << 10;  // the most any of the GPUs has
constexpr size_t MESSAGE_BYTES = WAN_SHIM_MESSAGE_BYTES;
constexpr uint8_t POISON = 0xff;
constexpr int MAX_ARRAYS = 32;
constexpr int MAX_BULK_COPIES = 64;
constexpr int PART_BARRIERS = 16;

const Kernel* kernels = nullptr;

// A fixed-size array in shared memory.
struct Array {
  const char* file;
  int line;
  size_t bytes;
  uint8_t* at;
};

// A barrier of some warps: those that have come, and those it waits for.
struct PartBarrier {
  int arrived, threads;
};

struct BulkCopy {
  void* to;
  const void* from;
  unsigned bytes;
  uint64_t* barrier;
  void (*arrived)(uint64_t*, unsigned);
};

// What one thread of the host needs to run blocks; kept from block to block.
struct Machine {
  Fibre* fibres = nullptr;  // MAX_THREADS of them
  uint8_t* stacks = nullptr;
  uint8_t* shared = nullptr;  // guard, fixed arrays with guards between, guard, dynamic, guard
  uint8_t* published = nullptr;  // dynamic shared memory as products know it
  void* scheduler = nullptr;
  const Kernel* kernel = nullptr;
  const uint64_t* arguments = nullptr;
  int threads = 0;
  int at_barrier = 0;
  unsigned waiting[MAX_THREADS / 32];  // lanes of each warp that wait at a collective
  Array arrays[MAX_ARRAYS];
  int array_count = 0;
  size_t static_bytes = 0;
  BulkCopy bulk[MAX_BULK_COPIES];
  int bulk_copies = 0;
  PartBarrier parts[PART_BARRIERS];
  Block block;
  bool failed = false;
  char message[MESSAGE_BYTES];

  Machine() {
    fibres = new Fibre[MAX_THREADS];
    stacks = map(STACK_BYTES * MAX_THREADS);
    shared = map(2 * SHARED_BYTES + 3 * GUARD_BYTES);
    published = map(SHARED_BYTES);
  }
  ~Machine() {
    delete[] fibres;
    munmap(stacks, STACK_BYTES * MAX_THREADS);
    munmap(shared, 2 * SHARED_BYTES + 3 * GUARD_BYTES);
    munmap(published, SHARED_BYTES);
  }
  static uint8_t* map(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return static_cast<uint8_t*>(p);
  }
  uint8_t* statics() const { return shared + GUARD_BYTES; }
  uint8_t* dynamic() const { return shared + 2 * GUARD_BYTES + SHARED_BYTES; }
};

thread_local Machine* machine = nullptr;

// What makes blocks run in different orders.
unsigned salt_of(uint3 index) { return index.x + 7 * index.y + 13 * index.z; }

void enter_scheduler(Fibre* fibre) { shim_switch(&fibre->stack_pointer, machine->scheduler); }

// Where a fibre starts.
void run_thread() {
  machine->kernel->invoke(machine->kernel->function, machine->arguments);
  current->state = State::Done;
  enter_scheduler(current);
}

void start(Fibre* fibre, int linear) {
  const uint3 dim = machine->block.launch->block;
  fibre->linear = unsigned(linear);
  fibre->thread = {linear % dim.x, linear / dim.x % dim.y, linear / dim.x / dim.y};
  fibre->state = State::Ready;
  fibre->block = &machine->block;
  fibre->copies = fibre->groups = fibre->products = fibre->product_groups = fibre->barriers = 0;
  fibre->fenced = false;
  fibre->started = 0;
  for (Sums& sums : fibre->sums) sums.products = 0, sums.registers = nullptr;
  fibre->stack_pointer = shim_stack(machine->stacks + STACK_BYTES * (size_t(linear) + 1), run_thread);
}

bool is_poison(const uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    if (from[i] != POISON) return false;
  }
  return true;
}

void report(const char* format, ...) __attribute__((format(printf, 1, 2)));
void report_list(const char* format, va_list list) {
  if (machine->failed) return;
  machine->failed = true;
  int at = snprintf(machine->message, MESSAGE_BYTES, "kernel %s, block (%u, %u, %u)", machine->kernel->name,
                    machine->block.index.x, machine->block.index.y, machine->block.index.z);
  if (current) {
    at += snprintf(machine->message + at, MESSAGE_BYTES - size_t(at), ", thread (%u, %u, %u)",
                   current->thread.x, current->thread.y, current->thread.z);
  }
  at += snprintf(machine->message + at, MESSAGE_BYTES - size_t(at), ": ");
  vsnprintf(machine->message + at, MESSAGE_BYTES - size_t(at), format, list);
}
void report(const char* format, ...) {
  va_list list;
  va_start(list, format);
  report_list(format, list);
  va_end(list);
}

// Names one thread of each kind of waiting: nobody can go on.
void report_deadlock() {
  current = nullptr;
  char text[MESSAGE_BYTES] = "";
  size_t at = 0;
  const Fibre* named[4];
  int kinds = 0;
  for (int i = 0; i < machine->threads && kinds < 4; i++) {
    const Fibre& fibre = machine->fibres[i];
    bool known = false;
    for (int k = 0; k < kinds; k++) {
      known |= named[k]->state == fibre.state &&
               (fibre.state == State::Done || (named[k]->site.line == fibre.site.line &&
                                               named[k]->site.what == fibre.site.what));
    }
    if (known) continue;
    named[kinds++] = &fibre;
    const char* sep = kinds > 1 ? "; " : "";
    const int left = int(MESSAGE_BYTES - at);
    const int written =
        fibre.state == State::Done
            ? snprintf(text + at, size_t(left), "%sthread %d has ended", sep, i)
            : snprintf(text + at, size_t(left), "%sthread %d waits at %s:%d (%s)", sep, i, fibre.site.file,
                       fibre.site.line, fibre.site.what);
    at += size_t(written < left ? written : left - 1);
  }
  report("threads never come together: %s", text);
}

// Runs what can run of one warp; whether anything did.
bool run_warp(int warp, bool backwards) {
  const int first = warp * 32;
  const int lanes = machine->threads - first < 32 ? machine->threads - first : 32;
  bool any = false;
  for (bool again = true; again && !machine->failed;) {
    again = false;
    for (int i = 0; i < lanes && !machine->failed; i++) {
      Fibre* fibre = &machine->fibres[first + (backwards ? lanes - 1 - i : i)];
      if (fibre->state != State::Ready) continue;
      current = fibre;
      shim_switch(&machine->scheduler, fibre->stack_pointer);
      again = any = true;
    }
  }
  return any;
}

// Where products look for what lies at an address in dynamic shared memory.
uint8_t* published(const void* address) {
  return machine->published + (static_cast<const uint8_t*>(address) - machine->dynamic());
}

// Lets one bulk copy arrive, the first or the last that was started; whether there was any.
bool land_bulk_copy(bool last) {
  if (machine->bulk_copies == 0) return false;
  current = nullptr;
  const int index = last ? machine->bulk_copies - 1 : 0;
  const BulkCopy copy = machine->bulk[index];
  machine->bulk_copies--;
  memmove(machine->bulk + index, machine->bulk + index + 1, size_t(machine->bulk_copies - index) * sizeof(BulkCopy));
  memcpy(copy.to, copy.from, copy.bytes);
  memcpy(published(copy.to), copy.from, copy.bytes);
  copy.arrived(copy.barrier, copy.bytes);
  return true;
}

// Makes those ready that gave way; whether there were any.
bool resume_giving_way() {
  bool any = false;
  for (int i = 0; i < machine->threads; i++) {
    if (machine->fibres[i].state != State::GivingWay) continue;
    machine->fibres[i].state = State::Ready;
    any = true;
  }
  return any;
}

// Products must have been waited for, and the same number started by all threads of a warpgroup.
void check_products() {
  constexpr int GROUP = 128;
  for (int i = 0; i < machine->threads; i++) {
    const Fibre& fibre = machine->fibres[i];
    const Fibre& first = machine->fibres[i / GROUP * GROUP];
    current = machine->fibres + i;
    if (fibre.products > 0) report("ended with %d products under way", fibre.products);
    if (fibre.started != first.started) {
      report("%u products, while the first thread of the warpgroup started %u", fibre.started, first.started);
    }
  }
}

void check_part_barriers() {
  current = nullptr;
  for (int i = 0; i < PART_BARRIERS; i++) {
    const PartBarrier& part = machine->parts[i];
    if (part.arrived > 0) report("ended with %d of %d threads at barrier %d", part.arrived, part.threads, i);
  }
}

void check_guards() {
  current = nullptr;
  const uint8_t* statics = machine->statics();
  const unsigned dynamic = machine->block.launch->shared_bytes;
  if (!is_poison(machine->shared, GUARD_BYTES)) report("wrote before its shared arrays");
  for (int i = 0; i < machine->array_count; i++) {
    const Array& array = machine->arrays[i];
    if (!is_poison(array.at + array.bytes, GUARD_BYTES)) {
      report("wrote past the shared array of %zu bytes at %s:%d", array.bytes, array.file, array.line);
    }
  }
  if (!is_poison(statics + SHARED_BYTES, GUARD_BYTES)) report("wrote before its dynamic shared memory");
  if (!is_poison(machine->dynamic() + dynamic, GUARD_BYTES)) {
    report("wrote past its %u bytes of dynamic shared memory", dynamic);
  }
}

void run_block() {
  const unsigned shared_bytes = machine->block.launch->shared_bytes;
  memset(machine->shared, POISON, GUARD_BYTES);
  memset(machine->dynamic() - GUARD_BYTES, POISON, shared_bytes + 2 * GUARD_BYTES);
  memset(machine->published, POISON, shared_bytes);
  machine->array_count = 0;
  machine->static_bytes = 0;
  machine->at_barrier = machine->bulk_copies = 0;
  memset(machine->waiting, 0, sizeof(machine->waiting));
  memset(machine->parts, 0, sizeof(machine->parts));
  for (int i = 0; i < machine->threads; i++) start(&machine->fibres[i], i);
  const uint3 index = machine->block.index;
  const int warps = (machine->threads + 31) / 32;
  // Block 0 runs backwards, the next ones forwards and backwards, each from another warp on.
  const unsigned salt = salt_of(index);
  bool backwards = salt % 2 == 0;
  for (bool any = true; any && !machine->failed; backwards = !backwards) {
    any = false;
    for (int i = 0; i < warps && !machine->failed; i++) {
      const int warp = int((unsigned(backwards ? warps - 1 - i : i) + salt) % unsigned(warps));
      any |= run_warp(warp, backwards);
    }
    if (any || machine->failed) continue;
    // Those that gave way wait for bulk copies, too, in some blocks.
    const bool copies_first = salt / 3 % 2 == 1;
    if (!copies_first) any = resume_giving_way();
    if (any) continue;
    bool done = true;
    for (int i = 0; i < machine->threads; i++) done &= machine->fibres[i].state == State::Done;
    if (done && machine->bulk_copies > 0) report("ended with %d bulk copies under way", machine->bulk_copies);
    any = (!done && land_bulk_copy(salt / 2 % 2 == 1)) || resume_giving_way();
  }
  if (machine->failed) return;
  for (int i = 0; i < machine->threads; i++) {
    if (machine->fibres[i].state != State::Done) return report_deadlock();
  }
  check_products();
  check_part_barriers();
  check_guards();
}

}  // namespace

__thread Fibre* current = nullptr;

void add(Kernel* kernel) {
  kernel->next = kernels;
  kernels = kernel;
}

void fail(const char* format, ...) {
  va_list list;
  va_start(list, format);
  report_list(format, list);
  va_end(list);
  enter_scheduler(current);
  __builtin_unreachable();
}

void sync_block(Site site) {
  Fibre* self = current;
  self->site = site;
  if (++machine->at_barrier < machine->threads) {
    self->state = State::AtBarrier;
    return enter_scheduler(self);
  }
  for (int i = 0; i < machine->threads; i++) {
    Fibre& other = machine->fibres[i];
    if (other.site.line != site.line || strcmp(other.site.file, site.file) != 0) {
      fail("at %s:%d, while thread %d is at %s:%d", site.file, site.line, i, other.site.file, other.site.line);
    }
  }
  machine->at_barrier = 0;
  for (int i = 0; i < machine->threads; i++) machine->fibres[i].state = State::Ready;
}

void collective(unsigned mask, Site site, void* slot, void (*complete)(void* const*)) {
  Fibre* self = current;
  const unsigned warp = self->linear / 32, lane = self->linear % 32;
  Fibre* lanes = &machine->fibres[warp * 32];
  unsigned* waiting = &machine->waiting[warp];
  if (!(mask >> lane & 1)) fail("%s:%d: lane %u is not in its own mask %#x", site.file, site.line, lane, mask);
  self->site = site;
  self->mask = mask;
  self->slot = slot;
  *waiting |= 1u << lane;
  if ((*waiting & mask) != mask) {
    self->state = State::AtCollective;
    return enter_scheduler(self);
  }
  void* slots[32] = {};
  for (unsigned i = 0; i < 32; i++) {
    if (!(mask >> i & 1)) continue;
    const Fibre& other = lanes[i];
    if (other.mask != mask || other.site.line != site.line || strcmp(other.site.file, site.file) != 0) {
      fail("%s:%d (%s) with mask %#x, while lane %u is at %s:%d with mask %#x", site.file, site.line, site.what,
           mask, i, other.site.file, other.site.line, other.mask);
    }
    slots[i] = other.slot;
  }
  complete(slots);
  *waiting &= ~mask;
  for (unsigned i = 0; i < 32; i++) {
    if (mask >> i & 1) lanes[i].state = State::Ready;
  }
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
  struct Slot {
    bool predicate;
    unsigned result;
  } slot = {predicate, 0};
  collective(mask, site, &slot, [](void* const* slots) {
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++) {
      if (slots[lane] && static_cast<Slot*>(slots[lane])->predicate) votes |= 1u << lane;
    }
    for (int lane = 0; lane < 32; lane++) {
      if (slots[lane]) static_cast<Slot*>(slots[lane])->result = votes;
    }
  });
  return slot.result;
}

unsigned char* dynamic_shared() { return machine->dynamic(); }

void* static_shared(const char* file, int line, size_t bytes) {
  for (int i = 0; i < machine->array_count; i++) {
    const Array& array = machine->arrays[i];
    if (array.line == line && array.bytes == bytes && strcmp(array.file, file) == 0) return array.at;
  }
  const size_t room = (bytes + 2 * GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES;
  if (machine->array_count == MAX_ARRAYS || machine->static_bytes + room > SHARED_BYTES) {
    fail("no room for a shared array of %zu bytes at %s:%d", bytes, file, line);
  }
  uint8_t* at = machine->statics() + machine->static_bytes;
  memset(at, POISON, room);
  machine->arrays[machine->array_count++] = {file, line, bytes, at};
  machine->static_bytes += room;
  return at;
}

void check_shared(const void* address, size_t bytes, const char* what) {
  const uint8_t* at = static_cast<const uint8_t*>(address);
  const uint8_t* dynamic = machine->dynamic();
  if (at >= dynamic && at + bytes <= dynamic + machine->block.launch->shared_bytes) return;
  for (int i = 0; i < machine->array_count; i++) {
    const Array& array = machine->arrays[i];
    if (at >= array.at && at + bytes <= array.at + array.bytes) return;
  }
  fail("%s: %zu bytes at %p are outside of shared memory (%td from the start of the dynamic part of %u bytes)",
       what, bytes, address, at - dynamic, machine->block.launch->shared_bytes);
}

void check_aligned(const void* address, size_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) fail("%s: %p is not aligned to %zu", what, address, bytes);
}

void copy_async(void* to, const void* from, unsigned bytes, unsigned zeros) {
  check_shared(to, bytes + zeros, "cp_async");
  check_aligned(to, bytes + zeros, "cp_async");
  check_aligned(from, bytes + zeros, "cp_async");
  if (current->copies == MAX_COPIES) fail("cp_async: more than %d copies in flight", MAX_COPIES);
  memset(to, POISON, bytes + zeros);
  current->copy[current->copies++] = {to, from, bytes, zeros};
}

void copy_commit() {
  int committed = 0;
  for (int i = 0; i < current->groups; i++) committed += current->group[i];
  if (current->groups == MAX_GROUPS) fail("cp_async: more than %d groups in flight", MAX_GROUPS);
  current->group[current->groups++] = current->copies - committed;
}

void copy_wait(int groups_left) {
  Fibre* self = current;
  int groups = self->groups - groups_left, copies = 0;
  if (groups <= 0) return;
  for (int i = 0; i < groups; i++) copies += self->group[i];
  for (int i = 0; i < copies; i++) {
    const AsyncCopy& copy = self->copy[i];
    memcpy(copy.to, copy.from, copy.bytes);
    memset(static_cast<uint8_t*>(copy.to) + copy.bytes, 0, copy.zeros);
  }
  self->copies -= copies;
  memmove(self->copy, self->copy + copies, size_t(self->copies) * sizeof(AsyncCopy));
  self->groups -= groups;
  memmove(self->group, self->group + groups, size_t(self->groups) * sizeof(int));
}

void sleep(const void* address, Site site) {
  current->site = site;
  current->slot = const_cast<void*>(address);
  current->state = State::Asleep;
  enter_scheduler(current);
}

void wake(const void* address) {
  for (int i = 0; i < machine->threads; i++) {
    Fibre& fibre = machine->fibres[i];
    if (fibre.state == State::Asleep && fibre.slot == address) fibre.state = State::Ready;
  }
}

void part_barrier(int number, int threads, bool wait, Site site) {
  if (number < 1 || number >= PART_BARRIERS) fail("barrier %d: expected 1 .. %d", number, PART_BARRIERS - 1);
  if (threads % 32 != 0 || threads > machine->threads) fail("barrier %d: of %d threads", number, threads);
  PartBarrier& part = machine->parts[number];
  if (part.arrived > 0 && part.threads != threads) {
    fail("barrier %d: of %d threads, while others come to it as one of %d", number, threads, part.threads);
  }
  part.threads = threads;
  if (++part.arrived == threads) {
    part.arrived = 0;
    wake(&part);
  } else if (wait) {
    sleep(&part, site);
  }
}

void give_way(Site site) {
  if (salt_of(machine->block.index) % 2 == 1) return;
  current->site = site;
  current->state = State::GivingWay;
  enter_scheduler(current);
}

void publish_shared() { memcpy(machine->published, machine->dynamic(), machine->block.launch->shared_bytes); }

void check_readable(const void* address, size_t bytes, const char* what) {
  const uint8_t* at = static_cast<const uint8_t*>(address);
  for (int i = 0; i < machine->bulk_copies; i++) {
    const BulkCopy& copy = machine->bulk[i];
    const uint8_t* to = static_cast<const uint8_t*>(copy.to);
    if (at < to + copy.bytes && to < at + bytes) fail("%s: reads a tile whose copy is under way", what);
  }
  if (memcmp(at, published(at), bytes) != 0) fail("%s: reads what was written without a fence since", what);
}

void copy_bulk(void* to, const void* from, unsigned bytes, uint64_t* barrier, void (*arrived)(uint64_t*, unsigned)) {
  constexpr unsigned PIECE = 16;
  check_shared(to, bytes, "bulk_copy");
  const ptrdiff_t place = static_cast<const uint8_t*>(to) - machine->dynamic();
  if (place < 0 || place + bytes > machine->block.launch->shared_bytes) {
    fail("bulk_copy: to a fixed array, expected dynamic shared memory");
  }
  check_aligned(to, PIECE, "bulk_copy");
  check_aligned(from, PIECE, "bulk_copy");
  if (bytes % PIECE != 0) fail("bulk_copy: %u bytes are no multiple of %u", bytes, PIECE);
  if (machine->bulk_copies == MAX_BULK_COPIES) fail("bulk_copy: more than %d in flight", MAX_BULK_COPIES);
  memset(to, POISON, bytes);
  memset(published(to), POISON, bytes);
  machine->bulk[machine->bulk_copies++] = {to, from, bytes, barrier, arrived};
}

}  // namespace shim

// ---- the interface to Rust -------------------------------------------------------------------------------

extern "C" {

int wan_shim_run(const WanShimLaunch* request, uint64_t first, uint64_t step, char* message) {
  using namespace shim;
  static thread_local Machine owned;
  machine = &owned;
  const Kernel* kernel = kernels;
  while (kernel && strcmp(kernel->name, request->kernel) != 0) kernel = kernel->next;
  const auto refuse = [&](const char* why) {
    snprintf(message, MESSAGE_BYTES, "kernel %s: %s", request->kernel, why);
    return 1;
  };
  if (!kernel) return refuse("there is none of that name");
  if (strcmp(kernel->kinds, request->kinds) != 0) {
    snprintf(message, MESSAGE_BYTES, "kernel %s: found arguments %s, expected %s", kernel->name, request->kinds,
             kernel->kinds);
    return 1;
  }
  const unsigned* grid = request->grid;
  const unsigned* dim = request->block;
  const uint64_t threads = uint64_t(dim[0]) * dim[1] * dim[2];
  const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
  if (threads == 0 || blocks == 0) return refuse("an empty grid or block");
  if (threads > uint64_t(kernel->max_threads)) return refuse("more threads a block than it was declared for");
  if (grid[1] > 65535 || grid[2] > 65535) return refuse("more than 65535 blocks along y or z");
  if (request->shared_bytes > SHARED_BYTES) return refuse("more shared memory than any GPU has");
  const Launch launch = {{grid[0], grid[1], grid[2]}, {dim[0], dim[1], dim[2]}, request->shared_bytes};
  owned.kernel = kernel;
  owned.arguments = request->arguments;
  owned.threads = int(threads);
  owned.failed = false;
  for (uint64_t i = first; i < blocks && !owned.failed; i += step) {
    owned.block.launch = &launch;
    owned.block.index = {unsigned(i % grid[0]), unsigned(i / grid[0] % grid[1]), unsigned(i / grid[0] / grid[1])};
    run_block();
  }
  current = nullptr;
  if (owned.failed) memcpy(message, owned.message, MESSAGE_BYTES);
  return owned.failed;
}

const char* wan_shim_kinds(const char* name) {
  for (const shim::Kernel* kernel = shim::kernels; kernel; kernel = kernel->next) {
    if (strcmp(kernel->name, name) == 0) return kernel->kinds;
  }
  return nullptr;
}

const char* wan_shim_digest() { return WAN_SHIM_DIGEST; }

}  // extern "C"
