use candle_core::{DType, Device};

use super::*;
use crate::testing::{assert_close, assert_thread_count_is_irrelevant, random, strided};
use crate::{Sums, rms_norm_reference, rope_reference};

fn inputs(l: usize, s: usize, heads: usize, d: usize) -> [Tensor; 3] {
    [random(&[l, heads, d], 1), random(&[s, heads, d], 2), random(&[s, heads, d], 3)]
}

#[test]
fn equals_the_reference() {
    for (l, s, heads, d) in [
        (1, 1, 1, 1),
        (5, 3, 2, 7),
        (96, 256, 1, 64),
        (130, 769, 3, 128),  // cross-attention to text and image
        (257, 257, 2, 80),   // CLIP
        (200, 1000, 1, 384), // VAE
    ] {
        let [q, k, v] = inputs(l, s, heads, d);
        let scale = 3.0 / (d as f32).sqrt(); // peaked: the running maximum moves
        let found = attention(&q, &k, &v, scale, None).unwrap();
        assert_close(&found, &attention_reference(&q, &k, &v, scale, None).unwrap(), 1e-5);
    }
}

#[test]
fn adds_the_bias_even_an_infinite_one() {
    let [q, k, v] = inputs(77, 300, 2, 32);
    let bias = random(&[2, 77, 300], 4);
    let found = attention(&q, &k, &v, 0.3, Some(&bias)).unwrap();
    assert_close(&found, &attention_reference(&q, &k, &v, 0.3, Some(&bias)).unwrap(), 3e-6);
    // The first 290 keys are masked, more than a whole step.
    let mask = Tensor::full(f32::NEG_INFINITY, (2, 77, 290), &Device::Cpu).unwrap();
    let bias = Tensor::cat(&[&mask, &bias.narrow(2, 290, 10).unwrap()], 2).unwrap();
    let found = attention(&q, &k, &v, 0.3, Some(&bias)).unwrap();
    assert_close(&found, &attention_reference(&q, &k, &v, 0.3, Some(&bias)).unwrap(), 3e-6);
}

#[test]
fn takes_strided_and_half_inputs() {
    let [q, k, v] = inputs(40, 50, 3, 24);
    let want = attention_reference(&q, &k, &v, 0.2, None).unwrap();
    let found = attention(&strided(&q), &strided(&k), &strided(&v), 0.2, None).unwrap();
    assert_close(&found, &want, 3e-6);
    let half = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
    let found = attention(&half(&q), &half(&k), &half(&v), 0.2, None).unwrap();
    assert_close(&found, &half(&want), 2e-2);
    let none = Tensor::zeros((0, 3, 24), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(attention(&none, &k, &v, 1.0, None).unwrap().dims(), [0, 3, 24]);
}

#[test]
fn a_sum_of_two_has_two_softmaxes() {
    let [q, k, v] = inputs(9, 20, 2, 16);
    let (image_k, image_v) = (random(&[7, 2, 16], 4), random(&[7, 2, 16], 5));
    let want = (attention_reference(&q, &k, &v, 0.3, None).unwrap()
        + attention_reference(&q, &image_k, &image_v, 0.3, None).unwrap())
    .unwrap();
    assert_close(&attention_sum(&q, (&k, &v), (&image_k, &image_v), 0.3).unwrap(), &want, 3e-6);
    assert!(attention_sum(&q, (&k, &v), (&image_k, &v), 0.3).is_err());
}

#[test]
fn the_choice_is_for_gpus_alone() {
    let [q, k, v] = inputs(9, 20, 2, 16);
    let values = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let exact = values(attention(&q, &k, &v, 0.3, None).unwrap());
    for choice in
        [AttentionChoice::Auto, AttentionChoice::Exact, AttentionChoice::Cudnn, AttentionChoice::Sage]
    {
        assert_eq!(values(self_attention(&q, &k, &v, 0.3, choice).unwrap()), exact);
    }
    let half = k.to_dtype(DType::BF16).unwrap();
    assert!(attention(&q, &half, &v, 0.3, None).is_err());
}

#[test]
fn products_are_normalised_finished_and_attended() {
    let (l, heads, d) = (40, 3, 16);
    let products = [1, 2, 3].map(|seed| random(&[l, heads * d], seed));
    let [row_scale, bias] = [random(&[l], 4), random(&[heads * d], 5)];
    let (query, key, rope) = (random(&[heads * d], 6), random(&[heads * d], 7), random(&[l, d / 2, 2], 8));
    let sums = products
        .each_ref()
        .map(|x| Sums::new(x.clone(), Some(row_scale.clone()), Some(bias.clone())).unwrap());
    let norm = QkNorm { query: &query, key: &key, eps: 1e-6, rope: &rope };
    let finished = |i: usize| {
        let scaled = products[i].broadcast_mul(&row_scale.unsqueeze(1).unwrap()).unwrap();
        scaled.broadcast_add(&bias).unwrap()
    };
    let normed = |i: usize, weight: &Tensor| {
        rope_reference(&rms_norm_reference(&finished(i), weight, 1e-6).unwrap(), &rope).unwrap()
    };
    let split = |t: Tensor| t.reshape((l, heads, d)).unwrap();
    let (q, k, v) = (split(normed(0, &query)), split(normed(1, &key)), split(finished(2)));
    let want = attention_reference(&q, &k, &v, 0.3, None).unwrap();
    for choice in [AttentionChoice::Auto, AttentionChoice::Sage] {
        let found = self_attention_of_products(sums.clone(), heads, norm, 0.3, choice).unwrap();
        assert_close(&found, &want, 3e-6);
    }
    let refused = |products: [Sums; 3], heads, what: &str| {
        let error = self_attention_of_products(products, heads, norm, 0.3, AttentionChoice::Auto);
        assert!(error.unwrap_err().to_string().contains(what), "{what}");
    };
    let [q, k, v] = sums;
    refused([q.clone(), k.clone(), v.clone()], 5, "attention queries");
    refused([q.clone(), k.narrow(0, 3).unwrap(), v.clone()], heads, "attention keys");
    let half = v.bare().to_dtype(DType::BF16).unwrap();
    refused([q, k, half.into()], heads, "attention values");
}

/// Scores of several hundred neither overflow nor lose the largest.
#[test]
fn survives_large_scores() {
    let [q, k, v] = inputs(9, 600, 1, 16);
    let found = attention(&q, &k, &v, 60.0, None).unwrap();
    assert_close(&found, &attention_reference(&q, &k, &v, 60.0, None).unwrap(), 1e-3);
}

#[test]
fn a_nan_key_is_not_hidden() {
    let [q, k, v] = inputs(3, 20, 1, 16);
    let nan = Tensor::full(f32::NAN, (1, 1, 16), &Device::Cpu).unwrap();
    let k = Tensor::cat(&[&k, &nan], 0).unwrap();
    let v = Tensor::cat(&[&v, &v.narrow(0, 0, 1).unwrap()], 0).unwrap();
    let y = attention(&q, &k, &v, 1.0, None).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(y.iter().all(|v| v.is_nan()));
}

#[test]
fn results_do_not_depend_on_the_thread_count() {
    let [q, k, v] = inputs(220, 300, 2, 64);
    assert_thread_count_is_irrelevant(|| attention(&q, &k, &v, 0.1, None).unwrap());
}

#[test]
fn mismatched_arguments_are_refused_by_name() {
    let [q, k, v] = inputs(4, 6, 2, 8);
    let error = attention(&q, &k, &v.narrow(0, 0, 5).unwrap(), 1.0, None).unwrap_err().to_string();
    assert!(error.contains("attention values"), "{error}");
    let error = attention(&q, &k, &v, 1.0, Some(&random(&[2, 4, 5], 1))).unwrap_err().to_string();
    assert!(error.contains("attention bias"), "{error}");
    assert!(attention(&q, &k.narrow(0, 0, 0).unwrap(), &v.narrow(0, 0, 0).unwrap(), 1.0, None).is_err());
}
