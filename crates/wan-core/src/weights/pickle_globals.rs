//! The only names a pickle may mention.

use candle_core::DType;

/// The globals that may be named; none is looked up anywhere.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    Storage(DType),
}

/// What `module.name` stands for.
///
/// Errors: a sentence naming it, for everything that no file of tensors needs.
pub(super) fn global(module: &str, name: &str) -> Result<Global, String> {
    Ok(match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch", "FloatStorage") => Global::Storage(DType::F32),
        ("torch", "DoubleStorage") => Global::Storage(DType::F64),
        ("torch", "HalfStorage") => Global::Storage(DType::F16),
        ("torch", "BFloat16Storage") => Global::Storage(DType::BF16),
        ("torch", "Float8_e4m3fnStorage") => Global::Storage(DType::F8E4M3),
        ("torch", "ByteStorage" | "BoolStorage") => Global::Storage(DType::U8),
        ("torch", "ShortStorage") => Global::Storage(DType::I16),
        ("torch", "IntStorage") => Global::Storage(DType::I32),
        ("torch", "LongStorage") => Global::Storage(DType::I64),
        _ => {
            let shown: String = format!("{module}.{name}").chars().take(80).collect();
            return Err(format!(
                "the pickle names `{}`, which is not part of a file of tensors; it is not run",
                shown.escape_debug()
            ));
        }
    })
}
