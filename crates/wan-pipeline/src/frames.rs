//! From decoded frames to the bytes that a sink takes, beside the decoding of the next ones.

use std::panic::resume_unwind;
use std::sync::mpsc::{SyncSender, sync_channel};

use candle_core::{DType, Tensor};
use wan_core::Error;
use wan_core::device::to_host;

use crate::Result;

/// Takes frames in order, each `height * width * 3` bytes RGB; called on a thread of its own, so that encoding and
/// decoding go on side by side.
pub type FrameSink<'s> = dyn FnMut(&[u8]) -> Result<()> + Send + 's;

/// Most lots of frames (those of one latent frame each) that wait for the sink.
const WAITING: usize = 4;

/// Frames on their way to the sink: each lot one or several whole frames.
pub(crate) type Frames = SyncSender<Vec<u8>>;

/// Runs `decode`, which sends lots of frames of `frame_bytes` each, while another thread hands them to `sink` one by one.
/// All have been handed over when it returns without error.
///
/// Errors: the sink's own, which ends the decoding at its next lot; else that of `decode`.
pub(crate) fn beside(
    sink: &mut FrameSink<'_>,
    frame_bytes: usize,
    decode: impl FnOnce(&Frames) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Vec<u8>>(WAITING);
        let writer = scope.spawn(move || -> Result<()> {
            for lot in receiver {
                lot.chunks_exact(frame_bytes).try_for_each(&mut *sink)?;
            }
            Ok(())
        });
        let decoded = decode(&sender);
        drop(sender);
        writer.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        decoded
    })
}

/// `frames` `[3, n, H, W]` in [0, 1] as `n` frames of bytes, sent on.
///
/// Errors: candle's; [`Error::Cancelled`] if nobody takes frames any more: the sink has failed, and says why.
pub(crate) fn send(frames: &Tensor, to: &Frames) -> Result<()> {
    Ok(to.send(to_bytes(frames)?).map_err(|_| Error::Cancelled)?)
}

/// What [`wan_media::to_u8`] does, on the frames' own device: a quarter of the bytes has to leave it.
fn to_bytes(frames: &Tensor) -> Result<Vec<u8>> {
    let bytes = frames.affine(255.0, 0.5)?.clamp(0f32, 255f32)?.to_dtype(DType::U8)?;
    Ok(to_host(&bytes.permute((1, 2, 3, 0))?)?.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use wan_media::to_u8;

    use super::*;

    fn lot(first: u8) -> Vec<u8> {
        (first..first + 6).collect()
    }

    #[test]
    fn frames_arrive_whole_and_in_order() {
        let mut seen = Vec::new();
        let mut sink = |frame: &[u8]| {
            seen.push(frame.to_vec());
            Ok(())
        };
        beside(&mut sink, 3, |to| {
            (0..20).for_each(|i| to.send(lot(6 * i)).unwrap());
            Ok(())
        })
        .unwrap();
        let expected: Vec<Vec<u8>> = (0..40).map(|i| (3 * i..3 * i + 3).collect()).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_sink_that_fails_ends_the_decoding_and_says_why() {
        let mut sink = |_: &[u8]| Err(Error::invalid("the sink", "full", "room").into());
        let mut sent = 0;
        let error = beside(&mut sink, 6, |to| {
            loop {
                to.send(lot(0)).map_err(|_| Error::Cancelled)?;
                sent += 1;
                assert!(sent < 1000, "the decoding goes on");
            }
        })
        .unwrap_err();
        assert!(error.to_string().contains("the sink"), "{error}");
    }

    #[test]
    fn decoding_that_fails_keeps_its_error() {
        let error = beside(&mut |_| Ok(()), 6, |to| {
            to.send(lot(0)).unwrap();
            Err(Error::Cancelled.into())
        })
        .unwrap_err();
        assert_eq!(error.to_string(), Error::Cancelled.to_string());
    }

    #[test]
    fn bytes_are_those_of_to_u8() {
        // Halves, both sides of the range, and values a step of f32 away from a half.
        let mut values: Vec<f32> = (-60..660).map(|i| i as f32 / 600.0).collect();
        values.extend((0..256).flat_map(|i| {
            let half = (i as f32 - 0.5) / 255.0;
            [half, half.next_up(), half.next_down(), i as f32 / 255.0]
        }));
        values.truncate(values.len() / 6 * 6);
        let (n, width) = (2, values.len() / 6);
        let frames = Tensor::from_slice(&values, (3, n, 1, width), &Device::Cpu).unwrap();
        let bytes = to_bytes(&frames).unwrap();
        for (i, byte) in bytes.into_iter().enumerate() {
            let (frame, x, channel) = (i / (3 * width), i / 3 % width, i % 3);
            let value = values[(channel * n + frame) * width + x];
            assert_eq!(byte, to_u8(value), "{value}");
        }
    }
}
