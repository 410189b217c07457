//! A pickle reader for state dicts. It knows tensors, storages, numbers, strings and containers, calls nothing,
//! and refuses every opcode and global beyond those; so a pickle with code in it is an error, never run.
//!
//! Source: CPython `Lib/pickle.py` (opcodes), PyTorch `torch/serialization.py` (persistent ids) and
//! `torch/_utils.py` (`_rebuild_tensor_v2`).

use std::collections::{HashMap, HashSet};

use candle_core::DType;

use super::pickle_globals::{Global, global};
use super::pickle_input::Input;

/// A tensor of a state dict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PickledTensor<'a> {
    /// Name of the storage in the archive's `data/`.
    pub storage: &'a str,
    /// Dtype of the storage.
    pub dtype: DType,
    /// Index of the first value in the storage.
    pub offset: usize,
    /// Shape.
    pub shape: Vec<usize>,
    /// Distance of neighbours along each axis, in values.
    pub stride: Vec<usize>,
}

/// Values hold indices instead of each other: nothing nests, so nothing overflows the stack when dropped.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Mark,
    None,
    Bool,
    Int(i64),
    Float,
    Str(&'a str),
    Tuple(usize),
    List,
    Dict(usize),
    Global(Global),
    Storage(&'a str, DType),
    Tensor(usize),
}

/// Keys under which training scripts nest the state dict.
const NESTED: [&str; 4] = ["state_dict", "model_state", "model", "module"];

/// More axes than any tensor of a model has.
const MAX_AXES: usize = 8;

/// Opcodes of tens of thousands of tensors, at about 40 each. What one opcode adds to memory is bounded, as texts stay
/// in the pickle and shapes are short; so this bounds the memory of all.
const MAX_OPCODES: usize = 1 << 21;

/// The named tensors of a pickled state dict; names and storages are part of `bytes`.
///
/// Errors: a sentence saying what is unknown or broken.
pub(super) fn state_dict(bytes: &[u8]) -> Result<Vec<(&str, PickledTensor<'_>)>, String> {
    let mut machine = Machine {
        input: Input::new(bytes),
        opcodes: 0,
        stack: vec![],
        memo: HashMap::new(),
        tuples: vec![],
        dicts: vec![],
        tensors: vec![],
    };
    let mut root = machine.run()?;
    // Values that are not tensors, such as a step count, are of no use here.
    for _ in 0..=NESTED.len() {
        let Value::Dict(dict) = root else { return Err("the pickle is not a dict of tensors".into()) };
        let found = machine.named_tensors(dict)?;
        let inner = NESTED.iter().find_map(|key| {
            let mut entries = machine.dicts[dict].iter();
            entries.find_map(|e| match e {
                (Value::Str(k), inner @ Value::Dict(_)) if k == key => Some(*inner),
                _ => None,
            })
        });
        match inner {
            Some(inner) if found.is_empty() => root = inner,
            _ => return Ok(found),
        }
    }
    Err("the pickle nests dicts without end".into())
}

struct Machine<'a> {
    input: Input<'a>,
    /// Opcodes run so far.
    opcodes: usize,
    stack: Vec<Value<'a>>,
    memo: HashMap<u32, Value<'a>>,
    tuples: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    tensors: Vec<PickledTensor<'a>>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value<'a>, String> {
        loop {
            self.opcodes += 1;
            if self.opcodes > MAX_OPCODES {
                return Err(format!(
                    "the pickle has more than {MAX_OPCODES} opcodes, which no file of tensors needs"
                ));
            }
            let at = self.input.at;
            match self.input.byte()? {
                0x80 => match self.input.byte()? {
                    2..=5 => {}
                    version => return Err(format!("pickle protocol {version} is not supported")),
                },
                0x95 => drop(self.input.take(8)?), // FRAME
                b'.' => return self.pop(),
                b'(' => self.stack.push(Value::Mark),
                b'0' => drop(self.pop()?),
                b'N' => self.stack.push(Value::None),
                0x88 | 0x89 => self.stack.push(Value::Bool),
                b'J' => {
                    let n = i32::from_le_bytes(self.input.array()?);
                    self.stack.push(Value::Int(n.into()));
                }
                b'K' => {
                    let n = self.input.byte()?;
                    self.stack.push(Value::Int(n.into()));
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.input.array()?);
                    self.stack.push(Value::Int(n.into()));
                }
                0x8a => {
                    let n = self.input.long()?;
                    self.stack.push(Value::Int(n));
                }
                b'G' => {
                    self.input.take(8)?;
                    self.stack.push(Value::Float);
                }
                b'X' => {
                    let n = u32::from_le_bytes(self.input.array()?) as usize;
                    let text = self.input.text(n)?;
                    self.stack.push(Value::Str(text));
                }
                0x8c => {
                    let n = self.input.byte()? as usize;
                    let text = self.input.text(n)?;
                    self.stack.push(Value::Str(text));
                }
                b')' => self.push_tuple(vec![]),
                0x85 => self.small_tuple(1)?,
                0x86 => self.small_tuple(2)?,
                0x87 => self.small_tuple(3)?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push_tuple(items);
                }
                b']' => self.stack.push(Value::List),
                b'a' => drop(self.pop()?),
                b'e' => drop(self.pop_to_mark()?),
                b'}' => self.push_dict(),
                b's' => {
                    let pair = (self.pop()?, self.pop()?);
                    self.set_items(&[pair.1, pair.0])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(&items)?;
                }
                b'q' => {
                    let key = self.input.byte()?.into();
                    self.memoize(key)?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.input.array()?);
                    self.memoize(key)?;
                }
                0x94 => {
                    let key = self.memo.len() as u32;
                    self.memoize(key)?;
                }
                b'h' => {
                    let key = self.input.byte()?.into();
                    self.recall(key)?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.input.array()?);
                    self.recall(key)?;
                }
                b'c' => {
                    let (module, name) = (self.input.line()?, self.input.line()?);
                    self.stack.push(Value::Global(global(module, name)?));
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Str(name), Value::Str(module)) => {
                        self.stack.push(Value::Global(global(module, name)?));
                    }
                    _ => return Err(format!("a global without a name at byte {at}")),
                },
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                // BUILD: attributes of an OrderedDict (`_metadata`), which hold no tensors.
                b'b' => drop(self.pop()?),
                opcode => {
                    return Err(format!(
                        "the pickle has opcode {opcode:#04x} at byte {at}, which no file of tensors needs; it is \
                         not run"
                    ));
                }
            }
        }
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        self.stack.pop().ok_or_else(|| "the pickle's stack is empty".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.stack.iter().rposition(|v| matches!(v, Value::Mark)).ok_or("a mark is missing")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn small_tuple(&mut self, n: usize) -> Result<(), String> {
        let from = self.stack.len().checked_sub(n).ok_or("the pickle's stack is empty")?;
        let items = self.stack.split_off(from);
        self.push_tuple(items);
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Value<'a>>) {
        self.stack.push(Value::Tuple(self.tuples.len()));
        self.tuples.push(items);
    }

    fn push_dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(vec![]);
    }

    fn set_items(&mut self, items: &[Value<'a>]) -> Result<(), String> {
        let Some(Value::Dict(dict)) = self.stack.last() else { return Err("items without a dict".into()) };
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        self.dicts[*dict].extend(items.as_chunks::<2>().0.iter().map(|[k, v]| (*k, *v)));
        Ok(())
    }

    fn memoize(&mut self, key: u32) -> Result<(), String> {
        let top = *self.stack.last().ok_or("the pickle's stack is empty")?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let value = self.memo.get(&key).ok_or_else(|| format!("the pickle has no memo {key}"))?;
        self.stack.push(*value);
        Ok(())
    }

    /// The tensors that are values of a dict. A name that is there twice is an error, so that what follows cannot
    /// copy one long name for every entry.
    fn named_tensors(&self, dict: usize) -> Result<Vec<(&'a str, PickledTensor<'a>)>, String> {
        let (mut found, mut names) = (Vec::new(), HashSet::new());
        for entry in &self.dicts[dict] {
            let (Value::Str(name), Value::Tensor(tensor)) = entry else { continue };
            if !names.insert(*name) {
                let shown: String = name.chars().take(80).collect();
                return Err(format!("the pickle has tensor {} twice", shown.escape_debug()));
            }
            found.push((*name, self.tensors[*tensor].clone()));
        }
        Ok(found)
    }

    fn tuple(&self, value: Value<'a>) -> Result<&[Value<'a>], String> {
        match value {
            Value::Tuple(i) => Ok(&self.tuples[i]),
            _ => Err("the pickle has something else where a tuple belongs".into()),
        }
    }

    /// `("storage", torch.XStorage, key, location, elements)`.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        match self.tuple(id)? {
            [Value::Str("storage"), Value::Global(Global::Storage(dtype)), Value::Str(key), ..] => {
                let storage = Value::Storage(key, *dtype);
                self.stack.push(storage);
                Ok(())
            }
            _ => Err("the pickle has a persistent id that is not a storage".into()),
        }
    }

    /// Stands in for a call of the few known functions.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let arguments = self.tuple(arguments)?;
        match (function, arguments) {
            (Value::Global(Global::OrderedDict), []) => self.push_dict(),
            (Value::Global(Global::RebuildParameter), [tensor @ Value::Tensor(_), ..]) => {
                let tensor = *tensor;
                self.stack.push(tensor);
            }
            (
                Value::Global(Global::RebuildTensor),
                [Value::Storage(key, dtype), Value::Int(offset), shape, stride, ..],
            ) => {
                let tensor = PickledTensor {
                    storage: key,
                    dtype: *dtype,
                    offset: size(*offset)?,
                    shape: self.sizes(*shape)?,
                    stride: self.sizes(*stride)?,
                };
                self.stack.push(Value::Tensor(self.tensors.len()));
                self.tensors.push(tensor);
            }
            _ => return Err("the pickle calls something that does not make a tensor; it is not run".into()),
        }
        Ok(())
    }

    fn sizes(&self, value: Value<'a>) -> Result<Vec<usize>, String> {
        let items = self.tuple(value)?;
        if items.len() > MAX_AXES {
            return Err(format!(
                "the pickle has a tensor of {} axes, expected at most {MAX_AXES}",
                items.len()
            ));
        }
        items
            .iter()
            .map(|v| match v {
                Value::Int(n) => size(*n),
                _ => Err("a shape holds something else than numbers".into()),
            })
            .collect()
    }
}

fn size(n: i64) -> Result<usize, String> {
    usize::try_from(n).map_err(|_| format!("the pickle has {n} where a size belongs"))
}

#[cfg(test)]
#[path = "pickle_tests.rs"]
mod tests;
