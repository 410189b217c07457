//! Writes PyTorch's zip files: pickled state dicts over stored, 64-byte aligned storages.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// A contiguous tensor; without `data` its storage is a hole.
pub struct Tensor<'a> {
    pub name: &'a str,
    pub dtype: &'a str,
    pub shape: Vec<u64>,
    pub data: Option<&'a [u8]>,
}

impl Tensor<'_> {
    fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * super::width(self.dtype)
    }
}

/// Writes `tensors` as `path`, with archive entries under `root`.
pub fn write(path: &Path, root: &str, tensors: &[Tensor<'_>]) {
    let mut zip = Zip { file: File::create(path).unwrap(), at: 0, central: Vec::new(), entries: 0 };
    let pickle = state_dict(tensors);
    zip.entry(&format!("{root}/data.pkl"), Some(&pickle), pickle.len() as u64);
    zip.entry(&format!("{root}/byteorder"), Some(b"little"), 6);
    for (i, tensor) in tensors.iter().enumerate() {
        zip.entry(&format!("{root}/data/{i}"), tensor.data, tensor.bytes());
    }
    zip.entry(&format!("{root}/version"), Some(b"3\n"), 2);
    zip.finish();
}

/// A protocol 2 pickle of a flat dict; tensor `i` owns storage `i`.
pub fn state_dict(tensors: &[Tensor<'_>]) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }
    fn number(out: &mut Vec<u8>, n: u64) {
        out.extend([0x8a, 8]); // LONG1
        out.extend((n as i64).to_le_bytes());
    }
    fn tuple(out: &mut Vec<u8>, numbers: &[u64]) {
        out.push(b'(');
        numbers.iter().for_each(|n| number(out, *n));
        out.push(b't');
    }
    let mut out = b"\x80\x02}(".to_vec();
    for (i, tensor) in tensors.iter().enumerate() {
        text(&mut out, tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        let storage = match tensor.dtype {
            "F32" => "FloatStorage",
            "F16" => "HalfStorage",
            "BF16" => "BFloat16Storage",
            other => panic!("dtype {other}"),
        };
        out.extend(format!("ctorch\n{storage}\n").as_bytes());
        text(&mut out, &i.to_string());
        text(&mut out, "cpu");
        number(&mut out, tensor.shape.iter().product());
        out.extend(b"tQ");
        number(&mut out, 0);
        tuple(&mut out, &tensor.shape);
        let strides: Vec<u64> =
            (1..=tensor.shape.len()).map(|n| tensor.shape[n..].iter().product()).collect();
        tuple(&mut out, &strides);
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

struct Zip {
    file: File,
    at: u64,
    central: Vec<u8>,
    entries: u64,
}

impl Zip {
    /// An entry of `size` bytes; without `data` a hole, whose checksum is left zero.
    fn entry(&mut self, name: &str, data: Option<&[u8]>, size: u64) {
        let crc = data.map_or(0, |data| {
            let mut crc = flate2::Crc::new();
            crc.update(data);
            crc.sum()
        });
        let head = 30 + name.len() as u64 + 4;
        let padding = (self.at + head).next_multiple_of(64) - self.at - head;
        let size = u32::try_from(size).expect("one storage stays below 4 GiB");
        let mut fixed = Vec::new();
        fixed.extend(0x0800u16.to_le_bytes()); // UTF-8 names
        fixed.extend([0; 4]); // stored; time
        fixed.extend(0x21u16.to_le_bytes()); // date
        fixed.extend(crc.to_le_bytes());
        fixed.extend(size.to_le_bytes());
        fixed.extend(size.to_le_bytes());
        fixed.extend((name.len() as u16).to_le_bytes());
        let mut local = b"PK\x03\x04\x00\x00".to_vec();
        local.extend(&fixed);
        local.extend((4 + padding as u16).to_le_bytes());
        local.extend(name.as_bytes());
        local.extend(0x4246u16.to_le_bytes());
        local.extend((padding as u16).to_le_bytes());
        local.resize(local.len() + padding as usize, b'Z');
        self.file.write_all(&local).unwrap();
        match data {
            Some(data) => self.file.write_all(data).unwrap(),
            None => drop(self.file.seek(SeekFrom::Current(size.into())).unwrap()),
        }

        let far = self.at >= u64::from(u32::MAX);
        self.central.extend(b"PK\x01\x02\x2d\x00\x2d\x00");
        self.central.extend(&fixed);
        self.central.extend((if far { 12u16 } else { 0 }).to_le_bytes());
        self.central.extend([0; 10]); // comment, disk, attributes
        self.central.extend((if far { u32::MAX } else { self.at as u32 }).to_le_bytes());
        self.central.extend(name.as_bytes());
        if far {
            self.central.extend([1, 0, 8, 0]); // zip64: the offset
            self.central.extend(self.at.to_le_bytes());
        }
        self.at += local.len() as u64 + u64::from(size);
        self.entries += 1;
    }

    fn finish(mut self) {
        let (begin, length, count) = (self.at, self.central.len() as u64, self.entries);
        self.file.write_all(&self.central).unwrap();
        let mut end = b"PK\x06\x06".to_vec(); // zip64 end of central directory
        end.extend(44u64.to_le_bytes());
        end.extend([45, 0, 45, 0]);
        end.extend([0; 8]);
        for value in [count, count, length, begin] {
            end.extend(value.to_le_bytes());
        }
        end.extend(b"PK\x06\x07\x00\x00\x00\x00");
        end.extend((begin + length).to_le_bytes());
        end.extend(1u32.to_le_bytes());
        end.extend(b"PK\x05\x06\x00\x00\x00\x00");
        end.extend((count as u16).to_le_bytes());
        end.extend((count as u16).to_le_bytes());
        end.extend((length as u32).to_le_bytes());
        end.extend((begin.min(u32::MAX.into()) as u32).to_le_bytes());
        end.extend([0; 2]);
        self.file.write_all(&end).unwrap();
    }
}
