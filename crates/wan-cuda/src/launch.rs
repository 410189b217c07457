use std::fmt;

/// An address in a device's memory, or for the shim in the host's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DevPtr(pub u64);

impl DevPtr {
    /// No memory: an absent argument.
    pub const NULL: Self = Self(0);

    /// The address `bytes` further on.
    #[must_use]
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }

    /// Whether the address is a multiple of `bytes`.
    pub fn is_aligned(self, bytes: u64) -> bool {
        self.0.is_multiple_of(bytes)
    }
}

impl fmt::Debug for DevPtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// One argument of a kernel, of exactly the type of its parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// A pointer.
    Ptr(DevPtr),
    /// `int`.
    I32(i32),
    /// `unsigned`.
    U32(u32),
    /// `int64_t`.
    I64(i64),
    /// `float`.
    F32(f32),
}

macro_rules! arg_from {
    ($($type:ty => $arg:ident),*) => {
        $(impl From<$type> for Arg {
            fn from(value: $type) -> Self {
                Self::$arg(value)
            }
        })*
    };
}
arg_from!(DevPtr => Ptr, i32 => I32, u32 => U32, i64 => I64, f32 => F32);

/// Kernel arguments from values of their Rust types: `args![x, rows as i32, eps]`.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::Arg::from($value)),*] };
}
pub(crate) use args;

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Name in `kernels/`.
    pub kernel: &'static str,
    /// Blocks along x, y and z. A launch of no blocks does nothing.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Arguments in order.
    pub args: Vec<Arg>,
}

impl Launch {
    /// A launch of `blocks` blocks of `threads` threads, without dynamic shared memory.
    pub fn new(kernel: &'static str, blocks: usize, threads: u32, args: Vec<Arg>) -> Self {
        Self { kernel, grid: [grid_size(blocks), 1, 1], block: [threads, 1, 1], shared_bytes: 0, args }
    }

    /// The launch on a grid of two or three axes.
    #[must_use]
    pub fn with_grid(self, grid: [usize; 3]) -> Self {
        Self { grid: grid.map(grid_size), ..self }
    }

    /// The launch with `bytes` of dynamic shared memory a block.
    #[must_use]
    pub fn with_shared(self, bytes: usize) -> Self {
        Self { shared_bytes: u32::try_from(bytes).expect("shared memory below 4 GiB"), ..self }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}

fn grid_size(blocks: usize) -> u32 {
    u32::try_from(blocks).expect("fewer than 2^32 blocks along an axis")
}

/// Float formats of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Float {
    /// `float`.
    F32,
    /// `__nv_bfloat16`.
    Bf16,
    /// `__half`.
    F16,
}

impl Float {
    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// The kernel `base` for activations of a [`Float`] format: `by_float!(float, "layer_norm")`.
macro_rules! by_float {
    ($float:expr, $base:literal) => {
        match $float {
            $crate::Float::F32 => concat!($base, "_f32"),
            $crate::Float::Bf16 => concat!($base, "_bf16"),
            $crate::Float::F16 => concat!($base, "_f16"),
        }
    };
}
pub(crate) use by_float;
