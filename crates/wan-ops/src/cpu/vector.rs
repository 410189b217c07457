#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{
    __m256, __m512, _mm256_add_ps, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_set1_ps,
};

/// A register of f32.
///
/// Inlined into code compiled for its instruction set (see [`Product`](super::tile::Product)), each method is one
/// instruction. They are not `unsafe` one by one: whoever names a type of registers answers for the machine's
/// having them.
pub(crate) trait Vector: Copy {
    /// Values it holds.
    const LANES: usize;

    /// `x` in every lane.
    fn splat(x: f32) -> Self;

    /// The `LANES` values at `from`, which need no alignment beyond f32's.
    ///
    /// # Safety
    /// They must be readable.
    #[allow(unsafe_code)]
    unsafe fn load(from: *const f32) -> Self;

    /// Writes to the `LANES` values at `to`.
    ///
    /// # Safety
    /// They must be writable.
    #[allow(unsafe_code)]
    unsafe fn store(self, to: *mut f32);

    /// `self * b + c`, rounded once where there is an instruction for it.
    fn mul_add(self, b: Self, c: Self) -> Self;

    /// `self + b`.
    fn add(self, b: Self) -> Self;
}

/// Implements [`Vector`] for a register type of x86.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_vector {
    ($register:ty, $lanes:literal, $splat:ident, $mul_add:ident, $add:ident) => {
        #[allow(unsafe_code)]
        impl Vector for $register {
            const LANES: usize = $lanes;

            #[inline(always)]
            fn splat(x: f32) -> Self {
                // SAFETY: only used where the instruction exists.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: readable by contract; arrays of f32 and registers are plain bits of one size.
                unsafe { core::mem::transmute::<[f32; $lanes], Self>(*from.cast()) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: writable by contract; arrays of f32 and registers are plain bits of one size.
                unsafe { *to.cast() = core::mem::transmute::<Self, [f32; $lanes]>(self) }
            }

            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: only used where the instruction exists.
                unsafe { $mul_add(self, b, c) }
            }

            #[inline(always)]
            fn add(self, b: Self) -> Self {
                // SAFETY: only used where the instruction exists.
                unsafe { $add(self, b) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86_vector!(__m512, 16, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps);
#[cfg(target_arch = "x86_64")]
x86_vector!(__m256, 8, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps);

/// Four lanes in plain Rust, which the compiler maps to NEON, SSE or scalars.
#[allow(unsafe_code)]
impl Vector for [f32; 4] {
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: readable by contract.
        unsafe { *from.cast() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: writable by contract.
        unsafe { *to.cast() = self }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // Elsewhere than on aarch64 this type means that there is no such instruction, and `f32::mul_add` would
        // call a function.
        core::array::from_fn(|i| {
            if cfg!(target_arch = "aarch64") { self[i].mul_add(b[i], c[i]) } else { self[i] * b[i] + c[i] }
        })
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        core::array::from_fn(|i| self[i] + b[i])
    }
}
