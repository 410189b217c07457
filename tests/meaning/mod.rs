//! Whether a video shows what its prompt says: the world of the embedded model, drawn here, and the measure.
//!
//! Both mirror models/tiny/train (`world.py`, `measure.py`).

mod maker;
mod measure;
mod obedience;
mod pairs;
mod shortcuts;
mod world;

use measure::{Features, obeys};
use pairs::{Pair, pairs};
use world::{Action, FRAMES};

/// Features of frames of the clip that does what `pair` asks, drawn.
fn features(pair: &Pair, frames: impl Iterator<Item = usize>) -> Features {
    let video: Vec<_> = frames.map(|frame| pair.scene.draw(pair.action, frame)).collect();
    Features::of(&video, pair.scene.actor.colour)
}

#[test]
fn drawn_truth_obeys_and_nothing_else_does() {
    let pairs = pairs(60);
    let (mut right, mut mistaken) = (0, Vec::new());
    for pair in &pairs {
        let found = features(pair, 0..FRAMES);
        right += usize::from(obeys(&found, pair.action));
        mistaken.extend(
            Action::ALL
                .into_iter()
                .filter(|&other| other != pair.action && obeys(&found, other))
                .map(|other| format!("{pair:?} is taken for {other:?}: {found:?}")),
        );
    }
    assert_eq!(right, pairs.len(), "told right");
    assert!(mistaken.is_empty(), "{}", mistaken.join("\n"));
}

#[test]
fn a_frozen_image_only_stays_still() {
    for pair in pairs(60) {
        let found = features(&pair, std::iter::repeat_n(0, FRAMES));
        for action in Action::ALL {
            assert_eq!(obeys(&found, action), action == Action::Still, "{pair:?}, {action:?}: {found:?}");
        }
    }
}
