//! What is refused, and in which words.

use candle_core::{DType, Device, Tensor};
use wan_core::testkit::repo_path;
use wan_core::{Error, Stored, WeightSet};
use wan_vae::{Tiling, Vae};

fn weights(file: &str) -> WeightSet {
    WeightSet::open(&repo_path("tests/golden/vae").join(file)).unwrap()
}

fn vae() -> Vae {
    Vae::open(&weights("vae.weights.safetensors"), None, &Device::Cpu, DType::F32).unwrap()
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

/// The fixture's weights under `rename`d names; `None` drops a tensor.
fn renamed(file: &str, rename: impl Fn(&str) -> Option<String>) -> WeightSet {
    let tensors = weights(file)
        .iter()
        .filter_map(|t| {
            let tensor = t.to_f32_tensor(&Device::Cpu).unwrap();
            Some(Stored::from_tensor(rename(t.name())?, &tensor).unwrap())
        })
        .collect::<Vec<_>>();
    WeightSet::from_tensors("file", tensors)
}

fn open_error(set: &WeightSet) -> String {
    Vae::open(set, None, &Device::Cpu, DType::F32).unwrap_err().to_string()
}

#[test]
fn a_prefixed_file_without_a_configuration_opens() {
    // No header here: everything is read off the shapes.
    let set = renamed("vae.weights.safetensors", |n| Some(format!("model.{n}")));
    assert_eq!(Vae::open(&set, None, &Device::Cpu, DType::F32).unwrap().config, vae().config);
    for file in ["vae", "vae_diffusers", "vae_other", "vae_other_diffusers"] {
        let file = format!("{file}.weights.safetensors");
        let stated = Vae::open(&weights(&file), None, &Device::Cpu, DType::F32).unwrap().config;
        let set = renamed(&file, |n| Some(n.to_string()));
        assert!(set.metadata().is_empty());
        assert_eq!(Vae::open(&set, None, &Device::Cpu, DType::F32).unwrap().config, stated, "{file}");
    }
}

#[test]
fn missing_and_unexpected_tensors_are_named() {
    let original = "vae.weights.safetensors";
    for name in
        ["encoder.downsamples.0.residual.2.weight", "decoder.upsamples.7.time_conv.bias", "conv2.weight"]
    {
        let set = renamed(original, |n| (n != name).then(|| n.to_string()));
        assert_eq!(open_error(&set), format!("file: 1 missing: {name}"));
    }
    let set =
        renamed(original, |n| Some(if n == "conv1.bias" { "conv9.bias".to_string() } else { n.to_string() }));
    assert_eq!(open_error(&set), "file: 1 missing: conv1.bias; 1 unexpected: conv9.bias");

    let diffusers = "vae_diffusers.weights.safetensors";
    let lacking = "decoder.up_blocks.3.resnets.2.conv2.bias";
    let set = renamed(diffusers, |n| (n != lacking).then(|| n.to_string()));
    assert_eq!(open_error(&set), "file: 1 missing: decoder.upsamples.14.residual.6.bias");

    let set = renamed(original, |n| Some(format!("other.{n}")));
    let message = open_error(&set);
    assert!(message.contains("not a Wan VAE in a known naming: found other.conv1.bias"), "{message}");
}

#[test]
fn tensors_of_the_wrong_shape_are_refused() {
    let vae = vae();
    for shape in [&[1, 3, 4, 16, 16][..], &[1, 4, 1, 16, 16], &[3, 1, 16, 16], &[2, 3, 1, 16, 16]] {
        let message = vae.encode(&zeros(shape)).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("video: found shape {shape:?}, expected [1, 3, 4k+1")),
            "{message}"
        );
    }
    let message = vae.encode(&zeros(&[1, 3, 1, 16, 7])).unwrap_err().to_string();
    assert!(message.contains("H and W at least 8"), "{message}");
    for shape in [&[1, 15, 1, 2, 2][..], &[16, 1, 2, 2], &[1, 16, 1, 0, 2]] {
        let message = vae.decode(&zeros(shape), None).unwrap_err().to_string();
        assert!(
            message.starts_with("latents: found shape") && message.contains("[1, 16, F, h, w]"),
            "{message}"
        );
    }
    let small = Tiling { tile_height: 4, ..Tiling::default() };
    let message = vae.decode(&zeros(&[1, 16, 1, 2, 2]), Some(&small)).unwrap_err().to_string();
    assert_eq!(message, "tile height: found 4 pixels, expected at least 8");
}

#[test]
fn a_stream_refuses_another_size_and_another_number_of_frames() {
    let vae = vae();
    let mut stream = vae.encoder.stream(None);
    assert!(stream.next(&zeros(&[1, 3, 4, 16, 16])).is_err());
    stream.next(&zeros(&[1, 3, 1, 16, 16])).unwrap();
    assert_eq!(stream.chunk_frames(), 4);
    assert!(stream.next(&zeros(&[1, 3, 1, 16, 16])).is_err());
    assert!(stream.next(&zeros(&[1, 3, 4, 16, 24])).is_err());
    let mut stream = vae.decoder.stream(None);
    assert!(stream.next(&zeros(&[1, 16, 2, 2, 2])).unwrap_err().to_string().contains("first latents"));
    assert_eq!(stream.next(&zeros(&[1, 16, 1, 2, 2])).unwrap().dims(), [3, 1, 16, 16]);
    assert_eq!(stream.next(&zeros(&[1, 16, 1, 2, 2])).unwrap().dims(), [3, 4, 16, 16]);
    assert_eq!(stream.next(&zeros(&[1, 16, 3, 2, 2])).unwrap().dims(), [3, 12, 16, 16]);
    assert!(stream.next(&zeros(&[1, 16, 1, 2, 3])).is_err());
}

#[test]
fn values_that_are_not_finite_are_counted_before_clamping() {
    let mut values = vec![0f32; 16 * 2 * 4];
    values[5] = f32::INFINITY; // in latent frame 2 of channel 0
    let latents = Tensor::from_vec(values, (1, 16, 2, 2, 2), &Device::Cpu).unwrap();
    let mut frames = 0;
    let error = vae()
        .decode_stream(&latents, None, 1, &mut |chunk| {
            frames += chunk.dim(1)?;
            Ok(())
        })
        .unwrap_err();
    assert_eq!(frames, 1, "the first latent frame is sound");
    match error {
        Error::NonFinite { stage, count, total } => {
            assert_eq!(stage, "decode of latent frame 2");
            assert!(count > 0 && total == 3 * 4 * 16 * 16);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_error_of_the_callback_stops_the_work() {
    let vae = vae();
    let mut calls = 0;
    let stopped = vae.decode_stream(&zeros(&[1, 16, 3, 1, 1]), None, 1, &mut |_| {
        calls += 1;
        if calls == 2 { Err(Error::Cancelled) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(Error::Cancelled)) && calls == 2);

    let mut chunks = vec![];
    let stopped = vae.encode_chunks(
        3,
        |i| {
            chunks.push(i);
            Ok(zeros(&[1, 3, if i == 0 { 1 } else { 4 }, 8, 8]))
        },
        |done| if done == 2 { Err(Error::Cancelled) } else { Ok(()) },
    );
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert_eq!(chunks, [0, 1]);

    let tiling = Tiling { tile_height: 8, tile_width: 8, stride_height: 8, stride_width: 8 };
    let mut tiles = vec![];
    let frames = vae.decoder.stream(Some(&tiling)).next_tiles(&zeros(&[1, 16, 1, 1, 3]), &mut |k, n| {
        tiles.push((k, n));
        Ok(())
    });
    assert_eq!(frames.unwrap().dims(), [3, 1, 8, 24]);
    assert_eq!(tiles, [(1, 3), (2, 3), (3, 3)]);
}
