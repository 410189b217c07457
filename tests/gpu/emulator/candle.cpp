// Candle's kernels (candle-kernels 0.11), by what they mean; those that wan-run uses.
#include <math.h>
#include <string.h>

#include "../../../kernels/shim/formats.h"
#include "emulator.h"

namespace emulator {
namespace {

// Element formats, named as candle names them.
struct Format {
  const char* name;
  size_t bytes;
  char kind;
  double (*read)(const void*);
  void (*write)(void*, double);
};

template <class T>
double read(const void* p) {
  T value;
  memcpy(&value, p, sizeof(value));
  return double(value);
}
template <class T>
void write(void* p, double x) {
  const T value = T(x);
  memcpy(p, &value, sizeof(value));
}
template <class Code, float (*WIDEN)(Code)>
double widen(const void* p) {
  Code code;
  memcpy(&code, p, sizeof(code));
  return double(WIDEN(code));
}
template <class Code, Code (*ROUND)(float)>
void round_to(void* p, double x) {
  const Code code = ROUND(float(x));
  memcpy(p, &code, sizeof(code));
}

const Format FORMATS[] = {
    {"f8_e4m3", 1, 'b', widen<uint8_t, shim::e4m3_to_float>, round_to<uint8_t, shim::float_to_e4m3>},
    {"bf16", 2, 'h', widen<uint16_t, shim::bf16_to_float>, round_to<uint16_t, shim::float_to_bf16>},
    {"f16", 2, 'h', widen<uint16_t, shim::f16_to_float>, round_to<uint16_t, shim::float_to_f16>},
    {"f32", 4, 'f', read<float>, write<float>},
    {"f64", 8, 'd', read<double>, write<double>},
    {"u32", 4, 'u', read<uint32_t>, write<uint32_t>},
    {"i64", 8, 'l', read<int64_t>, write<int64_t>},
    {"u8", 1, 'b', read<uint8_t>, write<uint8_t>},
};

const Format* format_named(const std::string& name) {
  for (const Format& format : FORMATS) {
    if (name == format.name) return &format;
  }
  return nullptr;
}

double at(const Format& format, uint64_t start, size_t i) {
  return format.read(reinterpret_cast<const uint8_t*>(start) + i * format.bytes);
}
void put(const Format& format, uint64_t start, size_t i, double x) {
  format.write(reinterpret_cast<uint8_t*>(start) + i * format.bytes, x);
}

// Where element `i` of a row-major walk over `dims` lies, by `strides`; null is contiguous.
size_t strided(size_t i, size_t rank, const size_t* dims, const size_t* strides) {
  if (!dims) return i;
  size_t place = 0;
  for (size_t d = rank; d-- > 0;) {
    place += i % dims[d] * strides[d];
    i /= dims[d];
  }
  return place;
}

const size_t* sizes(uint64_t address) { return reinterpret_cast<const size_t*>(address); }

using Unary = double (*)(double);
Unary unary_named(const std::string& name) {
  static const struct {
    const char* name;
    Unary function;
  } FUNCTIONS[] = {
      {"ucopy", [](double x) { return x; }},
      {"uneg", [](double x) { return -x; }},
      {"uabs", [](double x) { return fabs(x); }},
      {"uexp", [](double x) { return exp(x); }},
      {"ulog", [](double x) { return log(x); }},
      {"usin", [](double x) { return sin(x); }},
      {"ucos", [](double x) { return cos(x); }},
      {"usqr", [](double x) { return x * x; }},
      {"usqrt", [](double x) { return sqrt(x); }},
      {"utanh", [](double x) { return tanh(x); }},
      {"usilu", [](double x) { return x / (1 + exp(-x)); }},
      {"ugelu_erf", [](double x) { return x * 0.5 * erfc(-x * M_SQRT1_2); }},
      {"ugelu", [](double x) { return 0.5 * x * (1 + tanh(M_2_SQRTPI * M_SQRT1_2 * (x + 0.044715 * x * x * x))); }},
  };
  for (const auto& known : FUNCTIONS) {
    if (name == known.name) return known.function;
  }
  return nullptr;
}

using Binary = double (*)(double, double);
Binary binary_named(const std::string& name) {
  static const struct {
    const char* name;
    Binary function;
  } FUNCTIONS[] = {
      {"badd", [](double x, double y) { return x + y; }},
      {"bsub", [](double x, double y) { return x - y; }},
      {"bmul", [](double x, double y) { return x * y; }},
      {"bdiv", [](double x, double y) { return x / y; }},
      {"bmaximum", [](double x, double y) { return x > y ? x : y; }},
      {"bminimum", [](double x, double y) { return x < y ? x : y; }},
  };
  for (const auto& known : FUNCTIONS) {
    if (name == known.name) return known.function;
  }
  return nullptr;
}

Binary comparison_named(const std::string& name) {
  static const struct {
    const char* name;
    Binary function;
  } FUNCTIONS[] = {
      {"eq", [](double x, double y) -> double { return x == y; }},
      {"ne", [](double x, double y) -> double { return x != y; }},
      {"lt", [](double x, double y) -> double { return x < y; }},
      {"le", [](double x, double y) -> double { return x <= y; }},
      {"gt", [](double x, double y) -> double { return x > y; }},
      {"ge", [](double x, double y) -> double { return x >= y; }},
  };
  for (const auto& known : FUNCTIONS) {
    if (name == known.name) return known.function;
  }
  return nullptr;
}

double scalar(const Format& format, uint64_t argument) { return format.read(&argument); }

}  // namespace

CandleKernel candle_kernel(const std::string& name) {
  using Arguments = const std::vector<uint64_t>&;
  // OPERATION_FORMAT, where formats may hold an underscore.
  const Format* format = nullptr;
  std::string operation;
  for (size_t cut = name.find('_'); cut != std::string::npos && !format; cut = name.find('_', cut + 1)) {
    operation = name.substr(0, cut);
    format = format_named(name.substr(cut + 1));
  }
  if (!format) return {};
  const Format of = *format;
  if (const Unary function = unary_named(operation)) {
    return {"llppp", [=](Arguments a) {
              for (size_t i = 0; i < a[0]; i++) {
                const size_t from = a[3] ? strided(i, a[1], sizes(a[2]), sizes(a[2]) + a[1]) : i;
                put(of, a[4], i, function(at(of, a[3] ? a[3] : a[4], from)));
              }
            }};
  }
  const Binary compare = comparison_named(operation);
  if (const Binary function = compare ? compare : binary_named(operation)) {
    const Format to = compare ? *format_named("u8") : of;
    return {"llpppp", [=](Arguments a) {
              const size_t* dims = sizes(a[2]);
              for (size_t i = 0; i < a[0]; i++) {
                const double x = at(of, a[3], strided(i, a[1], dims, dims + a[1]));
                put(to, a[5], i, function(x, at(of, a[4], strided(i, a[1], dims, dims + 2 * a[1]))));
              }
            }};
  }
  if (operation == "affine") {
    return {std::string("llppp") + of.kind + of.kind, [=](Arguments a) {
              for (size_t i = 0; i < a[0]; i++) {
                const size_t from = a[3] ? strided(i, a[1], sizes(a[2]), sizes(a[2]) + a[1]) : i;
                put(of, a[4], i, at(of, a[3] ? a[3] : a[4], from) * scalar(of, a[5]) + scalar(of, a[6]));
              }
            }};
  }
  if (operation == "fill") {
    return {std::string("p") + of.kind + "l", [=](Arguments a) {
              for (size_t i = 0; i < a[2]; i++) put(of, a[0], i, scalar(of, a[1]));
            }};
  }
  if (operation == "const_set") {
    return {std::string("llp") + of.kind + "p", [=](Arguments a) {
              for (size_t i = 0; i < a[0]; i++) {
                put(of, a[4], strided(i, a[1], sizes(a[2]), sizes(a[2]) + a[1]), scalar(of, a[3]));
              }
            }};
  }
  if (operation == "copy2d") {
    return {"ppuuuu", [=](Arguments a) {
              for (size_t row = 0; row < a[2]; row++) {
                for (size_t i = 0; i < a[3]; i++) put(of, a[1], row * a[5] + i, at(of, a[0], row * a[4] + i));
              }
            }};
  }
  // Over the last dimensions; the first argument counts sums in the one, elements in the other.
  const bool sums_small = operation == "fast_sum_small";
  if (sums_small || operation == "fast_sum" || operation == "fast_max" || operation == "fast_min") {
    const Binary join = binary_named(operation == "fast_max" ? "bmaximum" : operation == "fast_min" ? "bminimum" : "badd");
    return {"lllppp", [=](Arguments a) {
              const size_t count = a[1], outputs = sums_small ? a[0] : a[0] / count;
              for (size_t i = 0; i < outputs; i++) {
                const auto element = [&](size_t k) {
                  return at(of, a[4], strided(i * count + k, a[2], sizes(a[3]), sizes(a[3]) + a[2]));
                };
                double result = element(0);
                for (size_t k = 1; k < count; k++) result = join(result, element(k));
                put(of, a[5], i, result);
              }
            }};
  }
  if (operation.compare(0, 5, "cast_") == 0) {
    const Format* from = format_named(operation.substr(5));
    if (!from) return {};
    return {"llppp", [=](Arguments a) {
              for (size_t i = 0; i < a[0]; i++) {
                put(of, a[4], i, at(*from, a[3], strided(i, a[1], sizes(a[2]), sizes(a[2]) + a[1])));
              }
            }};
  }
  if (operation.compare(0, 6, "where_") == 0) {
    const Format* condition = format_named(operation.substr(6));
    if (!condition) return {};
    return {"llppppp", [=](Arguments a) {
              const size_t* dims = sizes(a[2]);
              for (size_t i = 0; i < a[0]; i++) {
                const bool yes = at(*condition, a[3], strided(i, a[1], dims, dims + a[1])) != 0;
                const size_t from = strided(i, a[1], dims, dims + (yes ? 2 : 3) * a[1]);
                put(of, a[6], i, at(of, yes ? a[4] : a[5], from));
              }
            }};
  }
  if (operation.compare(0, 3, "is_") == 0) {
    const Format* index = format_named(operation.substr(3));
    if (!index) return {};
    // The strides are those of the indices, which are contiguous wherever this is called.
    return {"llppppllll", [=](Arguments a) {
              const size_t dim = a[7], count = a[8], right = a[9];
              for (size_t i = 0; i < a[0]; i++) {
                const size_t id = size_t(at(*index, a[3], i / right % count));
                const size_t from = (i / (count * right) * dim + id) * right + i % right;
                put(of, a[5], i, at(of, a[4], from));
              }
            }};
  }
  return {};
}

}  // namespace emulator
