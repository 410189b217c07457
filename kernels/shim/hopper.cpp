#include "hopper.h"

#include <string.h>

namespace shim {
namespace {

constexpr uint32_t FIRST_ADDRESS = 1024;  // of dynamic shared memory
constexpr int PIECE = 16;                 // bytes that a swizzle keeps together
constexpr int HALF_BYTES = 2;             // of bf16 and f16

// A barrier in its 64 bits. Full of ones, as shared memory starts, it is not initialised.
struct Phase {
  uint64_t parity : 1, fenced : 1, expected : 20, pending : 20;
  int64_t bytes : 22;
};
static_assert(sizeof(Phase) == sizeof(uint64_t), "a barrier is 64 bits");
constexpr uint64_t NO_BARRIER = (1 << 20) - 1;

Phase read(const uint64_t* barrier) {
  Phase phase;
  memcpy(&phase, barrier, sizeof(phase));
  return phase;
}

// Ends the phase if all have arrived.
void write(uint64_t* barrier, Phase phase) {
  const bool ended = phase.pending == 0 && phase.bytes == 0;
  if (ended) {
    phase.parity ^= 1;
    phase.pending = phase.expected;
  }
  memcpy(barrier, &phase, sizeof(phase));
  if (ended) wake(barrier);
}

Phase initialised(const uint64_t* barrier, const char* what) {
  check_shared(barrier, sizeof(*barrier), what);
  const Phase phase = read(barrier);
  if (phase.expected == NO_BARRIER) fail("%s: the barrier is not initialised", what);
  return phase;
}

void arrived(uint64_t* barrier, unsigned bytes) {
  Phase phase = read(barrier);
  phase.bytes -= int(bytes);
  write(barrier, phase);
}

// A matrix in shared memory, as its descriptor says; only what kernels use.
struct Matrix {
  uint32_t start, leading, stride;
  uint32_t row_bytes;  // and of the swizzle

  explicit Matrix(uint64_t descriptor) {
    constexpr uint64_t SWIZZLE_128 = 1, SWIZZLE_64 = 2;
    start = uint32_t(descriptor & 0x3fff) << 4;
    leading = uint32_t(descriptor >> 16 & 0x3fff) << 4;
    stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
    const uint64_t offset = descriptor >> 49 & 7, swizzle = descriptor >> 62;
    row_bytes = swizzle == SWIZZLE_128 ? 128 : 64;
    if ((swizzle != SWIZZLE_128 && swizzle != SWIZZLE_64) || offset != 0) {
      fail("wgmma: descriptor %#llx: expected the swizzle of 128 or 64 bytes and no offset",
           (unsigned long long)descriptor);
    }
  }
  const uint8_t* at(int row, int byte) const {
    uint32_t address = start + uint32_t(byte) / row_bytes * leading + uint32_t(byte) % row_bytes;
    address += uint32_t(row) / 8 * stride + uint32_t(row) % 8 * row_bytes;
    address ^= (address >> 7 & (row_bytes / 16 - 1)) << 4;
    const uint8_t* p = dynamic_shared() + address - FIRST_ADDRESS;
    check_shared(p, 1, "wgmma");
    return p;
  }
  void check_readable(int rows, int bytes) const {
    for (int row = 0; row < rows; row++) {
      for (int byte = 0; byte < bytes; byte += PIECE) shim::check_readable(at(row, byte), PIECE, "wgmma");
    }
  }
};

Sums* find(const Fibre& fibre, const void* registers) {
  for (const Sums& sums : fibre.sums) {
    if (sums.products > 0 && sums.registers == registers) return const_cast<Sums*>(&sums);
  }
  return nullptr;
}

constexpr uint32_t POISON = 0xffffffff;

// Ends a lane's first `count` products: sums that no other product adds to are in their registers again.
void finish(Fibre* fibre, int count) {
  for (int i = 0; i < count; i++) find(*fibre, fibre->product[i].d)->products--;
  for (int i = 0; i < count; i++) {
    uint32_t* d = static_cast<uint32_t*>(fibre->product[i].d);
    for (Sums& sums : fibre->sums) {
      if (sums.products > 0 || sums.registers != d) continue;
      for (int word = 0; word < sums.count; word++) {
        if (d[word] != POISON) fail("wgmma: register %d of the sums was written while a product was under way", word);
        d[word] = sums.values[word];
      }
      sums.registers = nullptr;
    }
  }
  fibre->products -= count;
  memmove(fibre->product, fibre->product + count, size_t(fibre->products) * sizeof(Product));
}

}  // namespace

void phase_init(uint64_t* barrier, int arrivals) {
  check_shared(barrier, sizeof(*barrier), "barrier_init");
  check_aligned(barrier, sizeof(*barrier), "barrier_init");
  Phase phase = {};
  phase.expected = phase.pending = uint64_t(arrivals);
  memcpy(barrier, &phase, sizeof(phase));
  if (current->barriers == MAX_BARRIERS) fail("barrier_init: more than %d barriers", MAX_BARRIERS);
  current->barrier[current->barriers++] = barrier;
}

void fence_phases() {
  for (int i = 0; i < current->barriers; i++) {
    Phase phase = read(current->barrier[i]);
    phase.fenced = 1;
    memcpy(current->barrier[i], &phase, sizeof(phase));
  }
  current->barriers = 0;
}

void phase_arrive(uint64_t* barrier, int bytes) {
  Phase phase = initialised(barrier, "barrier_arrive");
  if (phase.pending == 0) fail("barrier_arrive: more than %u arrivals in a phase", unsigned(phase.expected));
  phase.bytes += bytes;
  phase.pending--;
  write(barrier, phase);
  // Whoever waited for this may be faster than what this thread does next.
  if (bytes == 0) give_way({__FILE__, __LINE__, "barrier_arrive"});
}

void phase_wait(uint64_t* barrier, int parity, Site site) {
  while (initialised(barrier, "barrier_wait").parity == uint64_t(parity)) sleep(barrier, site);
}

void phase_copy(void* to, const void* from, int bytes, uint64_t* barrier) {
  if (!initialised(barrier, "bulk_copy").fenced) fail("bulk_copy: no fence since its barrier was initialised");
  copy_bulk(to, from, unsigned(bytes), barrier, arrived);
}

uint32_t shared_address(const void* p) {
  check_shared(p, 1, "shared_address");
  return uint32_t(static_cast<const uint8_t*>(p) - dynamic_shared()) + FIRST_ADDRESS;
}

void read_matrix(uint64_t descriptor, int first, int rows, uint8_t (*to)[PRODUCT_BYTES]) {
  const Matrix matrix(descriptor);
  for (int row = 0; row < rows; row++) {
    for (int byte = 0; byte < PRODUCT_BYTES; byte++) to[row][byte] = *matrix.at(first + row, byte);
  }
}

void read_transposed(uint64_t descriptor, int columns, uint8_t (*to)[PRODUCT_BYTES]) {
  const Matrix matrix(descriptor);
  for (int column = 0; column < columns; column++) {
    for (int i = 0; i < PRODUCT_BYTES; i++) {
      to[column][i] = *matrix.at(i / HALF_BYTES, column * HALF_BYTES + i % HALF_BYTES);
    }
  }
}

uint32_t* sums_of(const Fibre& fibre, const void* registers) { return find(fibre, registers)->values; }

void start_product(const Product& product) {
  Fibre* self = current;
  if (!self->fenced) fail("wgmma: a group of products without a fence before it");
  if (self->products == MAX_PRODUCTS) fail("wgmma: more than %d products in flight", MAX_PRODUCTS);
  if (self->linear % 32 == 0) {
    const int columns = product_columns(product.sums);
    if (!product.a) Matrix(product.a_matrix).check_readable(4 * PRODUCT_ROWS, PRODUCT_BYTES);
    if (product.b_is_rows) {
      Matrix(product.b_matrix).check_readable(PRODUCT_BYTES / HALF_BYTES, columns * HALF_BYTES);
    } else {
      Matrix(product.b_matrix).check_readable(columns, PRODUCT_BYTES);
    }
  }
  self->product[self->products++] = product;
  self->started++;
  if (Sums* sums = find(*self, product.d)) {
    sums->products++;
    return;
  }
  for (Sums& sums : self->sums) {
    if (sums.products > 0) continue;
    sums.registers = product.d;
    sums.products = 1;
    sums.count = product.sums;
    memcpy(sums.values, product.d, size_t(sums.count) * sizeof(uint32_t));
    memset(product.d, 0xff, size_t(sums.count) * sizeof(uint32_t));
    return;
  }
  fail("wgmma: more than %d sets of sums in flight", MAX_SUMS);
}

void fence_products() { current->fenced = true; }

void commit_products() {
  Fibre* self = current;
  int committed = 0;
  for (int i = 0; i < self->product_groups; i++) committed += self->product_group[i];
  if (self->product_groups == MAX_GROUPS) fail("wgmma: more than %d groups in flight", MAX_GROUPS);
  self->product_group[self->product_groups++] = self->products - committed;
  self->fenced = false;
}

void wait_products(int groups_left, Site site) {
  Fibre* self = current;
  const int groups = self->product_groups > groups_left ? self->product_groups - groups_left : 0;
  int count = 0;
  for (int i = 0; i < groups; i++) count += self->product_group[i];
  self->product_groups -= groups;
  memmove(self->product_group, self->product_group + groups, size_t(self->product_groups) * sizeof(int));
  self->due = count;
  collective(0xffffffffu, site, self, [](void* const* slots) {
    const Fibre& first = fibre_of(slots[0]);
    for (int lane = 0; lane < 32; lane++) {
      const Fibre& fibre = fibre_of(slots[lane]);
      bool same = fibre.due == first.due;
      for (int i = 0; same && i < first.due; i++) {
        const Product &own = fibre.product[i], &other = first.product[i];
        same = own.run == other.run && own.a_matrix == other.a_matrix && own.b_matrix == other.b_matrix &&
               own.add == other.add && own.b_is_rows == other.b_is_rows && !own.a == !other.a;
      }
      if (!same) fail("wgmma: lane %d has started other products than lane 0", lane);
    }
    for (int i = 0; i < first.due; i++) first.product[i].run(slots, i);
  });
  finish(self, count);
}

}  // namespace shim
