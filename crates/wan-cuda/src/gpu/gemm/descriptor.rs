use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys::{
    self, cublasComputeType_t as ComputeType, cublasLtEpilogue_t as LtEpilogue,
    cublasLtMatmulDescAttributes_t as Attribute, cudaDataType as DataType,
};

use super::{Epilogue, Gemm, Operand};
use crate::gpu::GpuError;
use crate::{DevPtr, Float};

/// cublasLt's descriptions of a product and its matrices.
pub(super) struct Descriptors {
    pub product: sys::cublasLtMatmulDesc_t,
    pub weight: sys::cublasLtMatrixLayout_t,
    pub x: sys::cublasLtMatrixLayout_t,
    pub y: sys::cublasLtMatrixLayout_t,
}

impl Descriptors {
    pub fn new(gemm: &Gemm, bias: DevPtr) -> Result<Self, GpuError> {
        Self::describe(gemm, bias).map_err(GpuError::blas(&format!("{gemm:?}")))
    }

    fn describe(gemm: &Gemm, bias: DevPtr) -> Result<Self, CublasError> {
        let operand = match gemm.operand {
            Operand::Float(float) => data_type(float),
            Operand::E4m3 => DataType::CUDA_R_8F_E4M3,
        };
        let output = data_type(gemm.output);
        let (rows, outputs, inputs) = (gemm.rows as u64, gemm.outputs as u64, gemm.inputs as u64);
        // Row-major matrices are the transposes of column-major ones: y = x wᵀ is yᵀ = w xᵀ.
        let layout =
            |kind, columns: u64, rows| result::create_matrix_layout(kind, columns, rows, columns as i64);
        let mut made = Self {
            product: result::create_matmul_desc(ComputeType::CUBLAS_COMPUTE_32F, DataType::CUDA_R_32F)?,
            weight: std::ptr::null_mut(),
            x: std::ptr::null_mut(),
            y: std::ptr::null_mut(),
        };
        made.weight = layout(operand, inputs, outputs)?;
        made.x = layout(operand, inputs, rows)?;
        made.y = layout(output, outputs, rows)?;
        made.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &1i32)?;
        let epilogue = match gemm.epilogue {
            Epilogue::None => LtEpilogue::CUBLASLT_EPILOGUE_DEFAULT,
            Epilogue::Bias => LtEpilogue::CUBLASLT_EPILOGUE_BIAS,
            Epilogue::GeluTanh => LtEpilogue::CUBLASLT_EPILOGUE_GELU,
            Epilogue::BiasGeluTanh => LtEpilogue::CUBLASLT_EPILOGUE_GELU_BIAS,
        };
        made.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        if matches!(gemm.epilogue, Epilogue::Bias | Epilogue::BiasGeluTanh) {
            made.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.0)?;
            made.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &output)?;
        }
        if gemm.operand == Operand::E4m3 {
            // Sums stay in the tensor cores' accumulators; their error is far below e4m3's own.
            made.set(Attribute::CUBLASLT_MATMUL_DESC_FAST_ACCUM, &1i8)?;
        }
        Ok(made)
    }

    fn set<T>(&self, attribute: Attribute, value: &T) -> Result<(), CublasError> {
        // SAFETY: the descriptor is alive, and cublasLt copies as many bytes as it is told there are.
        #[allow(unsafe_code)]
        unsafe {
            let value = std::ptr::from_ref(value).cast();
            result::set_matmul_desc_attribute(self.product, attribute, value, size_of::<T>())
        }
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: each was made once or is null, and is destroyed once. There is nobody to tell about an error.
        #[allow(unsafe_code)]
        unsafe {
            for layout in [self.weight, self.x, self.y] {
                if !layout.is_null() {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
            let _ = result::destroy_matmul_desc(self.product);
        }
    }
}

fn data_type(float: Float) -> DataType {
    match float {
        Float::F32 => DataType::CUDA_R_32F,
        Float::Bf16 => DataType::CUDA_R_16BF,
        Float::F16 => DataType::CUDA_R_16F,
    }
}
