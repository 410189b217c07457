// Instructions of compute capability 9.0: barriers with phases, bulk copies, products of warpgroups (PTX ISA, "mbarrier",
// "cp.async.bulk" and "Asynchronous Warpgroup Level Matrix Instructions").
//
// What is asynchronous on the GPU happens as late as it may. A bulk copy arrives when no thread can go on without it;
// until then its target is NaN. A product is computed when a warp waits for it, with what registers and shared memory
// hold at that moment; until then its sums are NaN, and writing to them is an error.
#pragma once

#include <stdint.h>

#include "matrix.h"

namespace shim {

// ---- barriers --------------------------------------------------------------------------------------------

void phase_init(uint64_t* barrier, int arrivals);
// Until then the thread's new barriers are not known to bulk copies.
void fence_phases();
// Arrives, announcing bytes.
void phase_arrive(uint64_t* barrier, int bytes);
void phase_wait(uint64_t* barrier, int parity, Site site);
void phase_copy(void* to, const void* from, int bytes, uint64_t* barrier);

// ---- products --------------------------------------------------------------------------------------------

// As the low 18 bits of an address in shared memory; 0 is none.
uint32_t shared_address(const void* p);

constexpr int PRODUCT_ROWS = 16;  // of a warp
constexpr int PRODUCT_BYTES = 32;  // of a row of either matrix
// Columns of a product of whose sums a lane has so many.
constexpr int product_columns(int sums) { return sums * 32 / PRODUCT_ROWS; }

// Rows `first` .. `first + rows` of a matrix in shared memory, 32 bytes each.
void read_matrix(uint64_t descriptor, int first, int rows, uint8_t (*to)[PRODUCT_BYTES]);
// Columns of a matrix of 16 rows of 16-bit values as rows.
void read_transposed(uint64_t descriptor, int columns, uint8_t (*to)[PRODUCT_BYTES]);
void start_product(const Product& product);
void fence_products();
void commit_products();
void wait_products(int groups_left, Site site);
// Where the sums of a lane's product lie while it is in flight.
uint32_t* sums_of(const Fibre& fibre, const void* registers);

// The fibre of a lane whose slot in `wait_products` is this.
inline const Fibre& fibre_of(const void* slot) { return *static_cast<const Fibre*>(slot); }

// Computes the product `index` of all lanes: 16 rows of each warp.
template <class Cells, class Sum, int SUMS>
inline void run_product(void* const* slots, int index) {
  using Value = typename Cells::Value;
  constexpr int PER = Cells::PER_WORD, DEPTH = PRODUCT_BYTES / 4 * PER, COLUMNS = product_columns(SUMS);
  Value a[PRODUCT_ROWS][DEPTH], b[COLUMNS][DEPTH];
  uint8_t bytes[COLUMNS][PRODUCT_BYTES];
  const auto widen = [&](int rows, Value(*to)[DEPTH]) {
    for (int row = 0; row < rows; row++) {
      for (int i = 0; i < DEPTH; i++) {
        uint32_t word;
        __builtin_memcpy(&word, &bytes[row][i / PER * 4], sizeof(word));
        to[row][i] = Cells::read(word, i % PER);
      }
    }
  };
  const Fibre& first = fibre_of(slots[0]);
  const Product& product = first.product[index];
  if (product.a) {
    for (int lane = 0; lane < 32; lane++) {
      for (int word = 0; word < 4; word++) {
        const int row = lane / 4 + 8 * (word % 2), column = PER * (4 * (word / 2) + lane % 4);
        for (int i = 0; i < PER; i++) {
          a[row][column + i] = Cells::read(fibre_of(slots[lane]).product[index].a[word], i);
        }
      }
    }
  } else {
    read_matrix(product.a_matrix, int(first.linear / 32 % 4) * PRODUCT_ROWS, PRODUCT_ROWS, bytes);
    widen(PRODUCT_ROWS, a);
  }
  if (product.b_is_rows) {
    read_transposed(product.b_matrix, COLUMNS, bytes);
  } else {
    read_matrix(product.b_matrix, 0, COLUMNS, bytes);
  }
  widen(COLUMNS, b);
  for (int lane = 0; lane < 32; lane++) {
    const Product& own = fibre_of(slots[lane]).product[index];
    uint32_t* sums = sums_of(fibre_of(slots[lane]), own.d);
    for (int i = 0; i < SUMS; i++) {
      const int row = lane / 4 + 8 * (i / 2 % 2), column = i / 4 * 8 + 2 * (lane % 4) + i % 2;
      Sum sum = 0;
      for (int k = 0; k < DEPTH; k++) sum += a[row][k] * b[column][k];
      sums[i] = bits_as<uint32_t>(Sum(own.add ? bits_as<Sum>(sums[i]) + sum : sum));
    }
  }
}

struct ProductKind {
  bool add;        // d += a b, or d = a b
  bool b_is_rows;  // over which is summed; else columns
};

// `a`: four registers, or null for `a_matrix`.
template <class Cells, class Sum, int SUMS>
inline void multiply_group(Sum (&d)[SUMS], const uint32_t* a, uint64_t a_matrix, uint64_t b_matrix,
                           ProductKind kind) {
  start_product({d, a, a_matrix, b_matrix, kind.add, kind.b_is_rows, SUMS, &run_product<Cells, Sum, SUMS>});
}

}  // namespace shim
