use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::CudnnError;
use super::library::{Library, Raw};

/// `cudnnBackendDescriptorType_t`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    EngineConfig = 3,
    Heuristics = 4,
    Plan = 5,
    Graph = 15,
    VariantPack = 16,
    Tensor = 17,
    DeviceProperties = 38,
    Attention = 41,
}

/// A value that a descriptor takes, `cudnnBackendAttributeType_t`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Handle(Raw),
    DataType(c_int),
    Flag(bool),
    Ints(&'a [i64]),
    Pointers(&'a [*mut c_void]),
    HeuristicMode(c_int),
    Text(&'a str),
    Descriptor(&'a Descriptor),
}

const TYPE_INT64: c_int = 3;
const TYPE_DESCRIPTOR: c_int = 15;

/// One of cuDNN's descriptors.
#[derive(Debug)]
pub(super) struct Descriptor {
    raw: Raw,
    library: Shared,
}

#[derive(Clone)]
struct Shared(Arc<Library>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cudnn")
    }
}

// SAFETY: a descriptor may be used by any thread, one at a time.
#[allow(unsafe_code)]
unsafe impl Send for Descriptor {}

impl Descriptor {
    /// An unfinished descriptor.
    pub fn new(library: &Arc<Library>, kind: Kind) -> Result<Self, CudnnError> {
        let mut raw = ptr::null_mut();
        // SAFETY: writes a descriptor to `raw`.
        #[allow(unsafe_code)]
        let status = unsafe { (library.create_descriptor)(kind as c_int, &raw mut raw) };
        library.check("create descriptor", status)?;
        Ok(Self { raw, library: Shared(library.clone()) })
    }

    /// A finished descriptor with these attributes.
    pub fn with(
        library: &Arc<Library>,
        kind: Kind,
        what: &'static str,
        attributes: &[(c_int, Value<'_>)],
    ) -> Result<Self, CudnnError> {
        let descriptor = Self::new(library, kind)?;
        for (attribute, value) in attributes {
            descriptor.set(what, *attribute, *value)?;
        }
        // SAFETY: a live descriptor.
        #[allow(unsafe_code)]
        library.check(what, unsafe { (library.finalize)(descriptor.raw) })?;
        Ok(descriptor)
    }

    fn set(&self, what: &'static str, attribute: c_int, value: Value<'_>) -> Result<(), CudnnError> {
        let set = |kind: c_int, count: usize, values: *const c_void| {
            let library = &self.library.0;
            // SAFETY: `values` holds `count` values of the type `kind`; they are copied.
            #[allow(unsafe_code)]
            let status = unsafe { (library.set_attribute)(self.raw, attribute, kind, count as i64, values) };
            library.check(what, status)
        };
        match value {
            Value::Handle(handle) => set(0, 1, (&raw const handle).cast()),
            Value::DataType(dtype) => set(1, 1, (&raw const dtype).cast()),
            Value::Flag(flag) => set(2, 1, (&raw const flag).cast()),
            Value::Ints(ints) => set(TYPE_INT64, ints.len(), ints.as_ptr().cast()),
            Value::Pointers(pointers) => set(6, pointers.len(), pointers.as_ptr().cast()),
            Value::HeuristicMode(mode) => set(8, 1, (&raw const mode).cast()),
            Value::Text(text) => set(24, text.len(), text.as_ptr().cast()),
            Value::Descriptor(other) => set(TYPE_DESCRIPTOR, 1, (&raw const other.raw).cast()),
        }
    }

    /// An attribute of one int64.
    pub fn int(&self, what: &'static str, attribute: c_int) -> Result<i64, CudnnError> {
        let (mut value, mut count) = (0i64, 0i64);
        let library = &self.library.0;
        // SAFETY: there is room for one value.
        #[allow(unsafe_code)]
        let status = unsafe {
            (library.get_attribute)(
                self.raw,
                attribute,
                TYPE_INT64,
                1,
                &raw mut count,
                (&raw mut value).cast(),
            )
        };
        library.check(what, status)?;
        Ok(value)
    }

    /// Fills `into` from an attribute of descriptors; how many there were.
    pub fn descriptors(
        &self,
        what: &'static str,
        attribute: c_int,
        into: &[Self],
    ) -> Result<usize, CudnnError> {
        let mut raws: Vec<Raw> = into.iter().map(|d| d.raw).collect();
        let (room, mut count) = (raws.len() as i64, 0i64);
        let library = &self.library.0;
        let to = raws.as_mut_ptr().cast();
        // SAFETY: there is room for `room` descriptors, each created for this attribute.
        #[allow(unsafe_code)]
        let status = unsafe {
            (library.get_attribute)(self.raw, attribute, TYPE_DESCRIPTOR, room, &raw mut count, to)
        };
        library.check(what, status)?;
        Ok(usize::try_from(count).unwrap_or(0).min(into.len()))
    }

    pub fn raw(&self) -> Raw {
        self.raw
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created by this library and destroyed once.
        #[allow(unsafe_code)]
        unsafe {
            (self.library.0.destroy_descriptor)(self.raw);
        }
    }
}
