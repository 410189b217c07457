//! Where a layer's matrix lies on a GPU.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{DType, Result, Tensor, bail};
use wan_core::Stored;
use wan_core::weights::Scale;
use wan_cuda::DevPtr;

/// Where the bytes of a [`Stored`] matrix, as they are in the file, lie for a GPU.
#[derive(Clone, Default)]
pub enum Place {
    /// In the file only: the layer's next use uploads them, and they stay.
    #[default]
    Mapped,
    /// In memory of their own.
    Resident(Arc<CudaSlice<u8>>),
    /// In memory that several weights use in turn, from `offset` on, a multiple of 16. Whoever puts them there orders
    /// the copy before the layer's use and the next copy behind it.
    Slot {
        /// The memory.
        slab: Arc<CudaSlice<u8>>,
        /// First byte.
        offset: usize,
    },
}

/// What a layer keeps on a GPU; clones of a layer share it.
#[derive(Clone, Default)]
pub(super) struct OnDevice(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    place: Place,
    /// Factors of the weight's rows, or one of all.
    scale: Option<Arc<CudaSlice<f32>>>,
    /// The bias in the dtype of the activations.
    bias: Option<Tensor>,
}

/// A weight's bytes on the device, which stay there as long as this lives.
pub(super) struct Located {
    pub start: DevPtr,
    _memory: Arc<CudaSlice<u8>>,
}

/// Factors of a weight as a kernel reads them.
pub(super) struct Factors {
    /// f32 values.
    pub start: DevPtr,
    /// 0 where one factor holds for all rows, else 1.
    pub stride: usize,
    _memory: Arc<CudaSlice<f32>>,
}

impl OnDevice {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_place(&self, place: Place) {
        self.kept().place = place;
    }

    /// The weight's bytes, uploaded if nobody has placed them yet.
    pub fn weight(&self, device: &CudaDevice, stored: &Stored) -> Result<Located> {
        let stream = device.cuda_stream();
        let mut kept = self.kept();
        if matches!(kept.place, Place::Mapped) {
            kept.place = Place::Resident(Arc::new(device.clone_htod(stored.bytes())?));
        }
        let (memory, offset) = match &kept.place {
            Place::Mapped => bail!("{}: not uploaded", stored.name()),
            Place::Resident(memory) => (memory, 0),
            Place::Slot { slab, offset } => (slab, *offset),
        };
        let bytes = stored.bytes().len();
        if offset.checked_add(bytes).is_none_or(|end| end > memory.len()) {
            let room = memory.len();
            bail!("{}: found a place for {room} bytes, expected {bytes} from {offset} on", stored.name());
        }
        let start = DevPtr(memory.device_ptr(&stream).0).offset(offset);
        Ok(Located { start, _memory: memory.clone() })
    }

    /// The factors of a scaled weight.
    pub fn factors(&self, device: &CudaDevice, scale: &Scale) -> Result<Factors> {
        let mut kept = self.kept();
        let memory = match &kept.scale {
            Some(memory) => memory.clone(),
            None => {
                let values = match scale {
                    Scale::Tensor(factor) => std::slice::from_ref(factor),
                    Scale::Rows(factors) => factors,
                };
                kept.scale.insert(Arc::new(device.clone_htod(values)?)).clone()
            }
        };
        let start = DevPtr(memory.device_ptr(&device.cuda_stream()).0);
        Ok(Factors { start, stride: usize::from(matches!(scale, Scale::Rows(_))), _memory: memory })
    }

    /// `bias` in `dtype`.
    pub fn bias(&self, bias: &Tensor, dtype: DType) -> Result<Tensor> {
        let mut kept = self.kept();
        match &kept.bias {
            Some(cast) if cast.dtype() == dtype => Ok(cast.clone()),
            _ => Ok(kept.bias.insert(bias.to_dtype(dtype)?.contiguous()?).clone()),
        }
    }
}

impl std::fmt::Debug for OnDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.kept().place {
            Place::Mapped => "Mapped",
            Place::Resident(_) => "Resident",
            Place::Slot { .. } => "Slot",
        })
    }
}
