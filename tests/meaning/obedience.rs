//! What the embedded model makes of prompts, through the public pipeline, on pairs that no training has seen.

use wan_media::RgbImage;

use super::maker::{DEFAULTS, Maker, Settings};
use super::measure::{Features, obeys};
use super::pairs::{Pair, pairs};
use super::world::Action;

/// Share of the pairs that have to obey.
const OBEYS: f32 = 0.9;

/// Share that what does not follow the prompt may reach by chance.
const CHANCE: f32 = 0.3;

/// Of the first frame against the given image, in dB.
const FIRST_FRAME: f32 = 26.0;

/// Share of the pairs whose video does what their prompt says; `report` names it and those that do not.
pub fn obedient<'a>(
    report: &str,
    pairs: &[Pair],
    videos: impl IntoIterator<Item = &'a Vec<RgbImage>>,
) -> f32 {
    let mut right = 0;
    for (pair, video) in pairs.iter().zip(videos) {
        let found = Features::of(video, pair.scene.actor.colour);
        if obeys(&found, pair.action) {
            right += 1;
        } else {
            println!("{report}: {} ({:?}): {found:?}", pair.prompt, pair.scene.actor.shape);
        }
    }
    println!("{report}: {right} of {} obey", pairs.len());
    right as f32 / pairs.len() as f32
}

/// The videos of `pairs` in another order: each pair gets that of the pair that shares its image.
fn swapped(videos: &[Vec<RgbImage>]) -> impl Iterator<Item = &Vec<RgbImage>> {
    (0..videos.len()).map(|i| &videos[i ^ 1])
}

/// What a video of nothing but its first frame scores.
fn frozen(pairs: &[Pair], videos: &[Vec<RgbImage>]) -> f32 {
    let still: Vec<_> = videos.iter().map(|video| vec![video[0].clone(); video.len()]).collect();
    obedient("frozen", pairs, &still)
}

/// In dB.
fn psnr(a: &RgbImage, b: &RgbImage) -> f32 {
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    let sum: f64 = a.data().iter().zip(b.data()).map(square).sum();
    (10.0 * (255.0_f64.powi(2) * a.data().len() as f64 / sum).log10()) as f32
}

/// The worst of all first frames, in dB.
fn first_frames(pairs: &[Pair], videos: &[Vec<RgbImage>]) -> f32 {
    let each = pairs.iter().zip(videos).map(|(pair, video)| psnr(&video[0], &pair.scene.image()));
    let worst = each.fold(f32::INFINITY, f32::min);
    println!("first frames: {worst:.1} dB or better");
    worst
}

/// Mean way along the direction that was asked for, of pairs that move; in units of the shorter side.
fn way(pairs: &[Pair], videos: &[Vec<RgbImage>]) -> f32 {
    let along = |(pair, video): (&Pair, &Vec<RgbImage>)| {
        let found = Features::of(video, pair.scene.actor.colour);
        match pair.action {
            Action::Right => Some(found.dx),
            Action::Left => Some(-found.dx),
            Action::Down => Some(found.dy),
            Action::Up => Some(-found.dy),
            _ => None,
        }
    };
    let ways: Vec<f32> = pairs.iter().zip(videos).filter_map(along).collect();
    ways.iter().sum::<f32>() / ways.len() as f32
}

#[test]
fn eight_pairs_obey() {
    let maker = Maker::new();
    let pairs = pairs(8);
    let videos = maker.videos(&pairs, DEFAULTS);
    assert!(obedient("8 pairs", &pairs, &videos) >= 0.85);
    assert!(first_frames(&pairs, &videos) >= FIRST_FRAME);
    assert!(frozen(&pairs, &videos) <= CHANCE);
    assert!(obedient("the other prompt's video", &pairs, swapped(&videos)) <= CHANCE);
}

/// Some 300 videos.
#[test]
#[ignore = "minutes; make test-long runs it"]
fn sixty_pairs_obey() {
    let maker = Maker::new();
    let pairs = pairs(60);
    let videos = maker.videos(&pairs, DEFAULTS);
    assert!(obedient("10 steps", &pairs, &videos) >= OBEYS);
    assert!(first_frames(&pairs, &videos) >= FIRST_FRAME);

    assert!(frozen(&pairs, &videos) <= CHANCE);
    assert!(obedient("the other prompt's video", &pairs, swapped(&videos)) <= CHANCE);
    // Each image with the prompt of a pair far away, which names another object and another action.
    let prompt = |i: usize| {
        let others = (1..pairs.len()).map(|n| &pairs[(i + n * 7) % pairs.len()]);
        let mut others = others.filter(|other| other.action != pairs[i].action);
        others.next().expect("more actions than one").prompt.as_str()
    };
    let shuffled: Vec<_> =
        pairs.iter().enumerate().map(|(i, pair)| maker.make(pair, prompt(i), DEFAULTS).frames).collect();
    assert!(obedient("shuffled prompts", &pairs, &shuffled) <= CHANCE);

    let twenty = maker.videos(&pairs, Settings { steps: 20, ..DEFAULTS });
    assert!(obedient("20 steps", &pairs, &twenty) >= OBEYS);

    let unguided = maker.videos(&pairs, Settings { cfg: 1.0, ..DEFAULTS });
    let alone = obedient("cfg 1", &pairs, &unguided);
    let ways = (way(&pairs, &videos), way(&pairs, &unguided));
    println!("way along the direction: {:.3} with cfg 6, {:.3} with cfg 1", ways.0, ways.1);
    assert!(ways.0 > ways.1 || alone >= 0.95);

    let (moving, moved): (Vec<_>, Vec<_>) =
        pairs.iter().cloned().zip(videos).filter(|(pair, _)| pair.action != Action::Still).unzip();
    let lively = maker.videos(&moving, Settings { negative: "static", ..DEFAULTS });
    let ways = (way(&moving, &moved), way(&moving, &lively));
    println!(
        "way along the direction: {:.3} without a negative prompt, {:.3} with \"static\"",
        ways.0, ways.1
    );
    assert!(ways.1 >= 0.97 * ways.0 && obedient("negative prompt \"static\"", &moving, &lively) >= OBEYS);
}
