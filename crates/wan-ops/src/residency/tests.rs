use std::collections::{BTreeMap, HashSet};

use super::schedule::{Action, SwapSchedule};
use super::simulation::Recorder;
use super::swapper::Swapper;

const BLOCKS: usize = 40;

/// Numbers of `count` of the blocks, spread evenly.
fn spread(blocks: usize, count: usize) -> Vec<usize> {
    (0..blocks).filter(|i| (i + 1) * count / blocks > i * count / blocks).collect()
}

struct Run {
    swapper: Swapper<Recorder>,
    swapped: Vec<usize>,
    slots: usize,
    visits: BTreeMap<usize, usize>,
}

impl Run {
    fn new(swapped: &[usize], slots: usize) -> Self {
        Self::sabotaged(swapped, slots, None)
    }

    fn sabotaged(swapped: &[usize], slots: usize, sabotage: Option<fn(&Action) -> bool>) -> Self {
        Self::of(SwapSchedule::new(swapped, slots, true), swapped, sabotage)
    }

    /// For passes of which none is known to follow.
    fn once(swapped: &[usize], slots: usize) -> Self {
        Self::of(SwapSchedule::new(swapped, slots, false), swapped, None)
    }

    fn of(schedule: SwapSchedule, swapped: &[usize], sabotage: Option<fn(&Action) -> bool>) -> Self {
        let slots = schedule.slots();
        let swapper = Swapper::new(schedule, Recorder::sabotaged(sabotage));
        Self { swapper, swapped: swapped.to_vec(), slots, visits: BTreeMap::new() }
    }

    /// Visits `part` as a model does; kernels are queued in between.
    fn visit(&mut self, part: usize) {
        self.enter(part);
        self.swapper.leave().unwrap();
    }

    fn enter(&mut self, part: usize) {
        let slot = self.swapper.enter(part).unwrap();
        assert_eq!(slot.is_some(), self.swapped.contains(&part), "part {part}");
        if let Some(slot) = slot {
            *self.visits.entry(part).or_default() += 1;
            self.swapper.queues_mut().read(part, slot);
        }
    }

    fn pass(&mut self, blocks: usize) {
        self.swapper.begin().unwrap();
        (0..blocks).for_each(|part| self.visit(part));
    }

    fn check(&self) -> Result<(), String> {
        self.swapper.queues().check(self.slots)
    }
}

#[test]
fn every_visit_finds_its_part_whatever_the_queues_do() {
    for count in 0..=BLOCKS {
        for slots in [2, 3] {
            let mut run = Run::new(&spread(BLOCKS, count), slots);
            for _ in 0..3 {
                run.pass(BLOCKS);
            }
            run.check().unwrap_or_else(|e| panic!("{count} swapped, {slots} slots: {e}"));
            assert_eq!(run.visits.len(), count, "exactly the swapped blocks go through slots");
        }
    }
}

#[test]
fn a_visit_costs_one_copy_and_parts_that_fit_into_the_slots_cost_one_in_all() {
    const PASSES: usize = 5;
    for slots in [2, 3] {
        for count in 0..=BLOCKS {
            let mut run = Run::new(&spread(BLOCKS, count), slots);
            for _ in 0..PASSES {
                run.pass(BLOCKS);
            }
            let copies: usize = run.swapper.queues().copies.values().sum();
            // Those of the next pass are already on their way.
            let expected = if count <= slots { count } else { PASSES * count + slots };
            assert_eq!(copies, expected, "{count} swapped, {slots} slots");
        }
    }
}

/// As the text encoder's layers pass through: each is copied once a pass and none for a pass that may not come.
#[test]
fn a_pass_that_stands_alone_copies_what_it_visits() {
    const LAYERS: usize = 24;
    for slots in [2, 3] {
        for count in 0..=LAYERS {
            let mut run = Run::once(&spread(LAYERS, count), slots);
            for passes in 1..=3 {
                run.pass(LAYERS);
                run.check().unwrap_or_else(|e| panic!("{count} swapped, {slots} slots: {e}"));
                let copies: usize = run.swapper.queues().copies.values().sum();
                let expected = if count <= slots { count } else { passes * count };
                assert!(
                    copies <= expected,
                    "{count} swapped, {slots} slots: {copies} copies in {passes} passes"
                );
                assert!(copies >= count, "{count} swapped, {slots} slots: {copies} copies");
            }
        }
    }
}

/// A copy is queued while the visits before it are still to come, never at the visit itself.
#[test]
fn copies_are_queued_as_many_visits_ahead_as_there_are_slots() {
    for slots in [2, 3] {
        let mut schedule = SwapSchedule::new(&spread(BLOCKS, 20), slots, true);
        let first = schedule.begin();
        assert_eq!(first.iter().filter(|a| matches!(a, Action::Copy { .. })).count(), slots);
        let swapped = spread(BLOCKS, 20);
        for step in 0..3 * swapped.len() {
            let (_, entering) = schedule.enter(swapped[step % swapped.len()]);
            assert!(matches!(entering.as_slice(), [Action::AwaitFilled { .. }]), "{entering:?}");
            let ahead = swapped[(step + slots) % swapped.len()];
            let leaving = schedule.leave();
            let copied = leaving.iter().find_map(|a| match a {
                Action::Copy { part, .. } => Some(*part),
                _ => None,
            });
            assert_eq!(copied, Some(ahead), "{leaving:?}");
        }
    }
}

#[test]
fn a_pass_may_stop_anywhere_and_the_next_one_starts_over() {
    for slots in [2, 3] {
        for count in [1, 2, 3, 4, 7, 12] {
            for stop in 0..12 {
                for inside in [false, true] {
                    let mut run = Run::new(&spread(12, count), slots);
                    run.pass(12);
                    run.swapper.begin().unwrap();
                    (0..stop).for_each(|part| run.visit(part));
                    if inside {
                        run.enter(stop); // an error: the visit is never left
                    }
                    run.pass(12);
                    run.pass(12);
                    run.check()
                        .unwrap_or_else(|e| panic!("{count} swapped, {slots} slots, stop at {stop}: {e}"));
                }
            }
        }
    }
}

/// Any order at all, from a small generator: parts twice in a row, backwards, with passes begun in between.
#[test]
fn parts_may_be_visited_in_any_order() {
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for round in 0..200 {
        let blocks = 1 + random(9);
        let swapped: Vec<usize> = (0..blocks).filter(|_| random(3) > 0).collect();
        let make = if random(2) == 0 { Run::new } else { Run::once };
        let mut run = make(&swapped, 1 + random(3));
        for _ in 0..60 {
            match random(8) {
                0 => run.swapper.begin().unwrap(),
                1 => run.enter(random(blocks)),
                _ => run.visit(random(blocks)),
            }
        }
        run.check().unwrap_or_else(|e| panic!("round {round}, swapped {swapped:?}: {e}"));
    }
}

/// The check would notice: without any one kind of event, some order of the queues reads wrong weights.
#[test]
fn every_event_is_needed() {
    let kinds: [fn(&Action) -> bool; 4] = [
        |a| matches!(a, Action::AwaitFree { .. }),
        |a| matches!(a, Action::RecordFilled { .. }),
        |a| matches!(a, Action::AwaitFilled { .. }),
        |a| matches!(a, Action::RecordFree { .. }),
    ];
    for slots in [2, 3] {
        for leave_out in kinds {
            let mut run = Run::sabotaged(&spread(8, 5), slots, Some(leave_out));
            run.pass(8);
            run.pass(8);
            assert!(run.check().unwrap_err().starts_with("slot "));
        }
    }
}

#[test]
fn after_a_failure_everything_is_copied_again() {
    let mut schedule = SwapSchedule::new(&[0, 1, 2, 3], 2, true);
    schedule.begin();
    let (slot, _) = schedule.enter(0);
    schedule.forget();
    let again = schedule.begin();
    assert_eq!(again[0], Action::RecordFree { slot: slot.unwrap() }, "kernels may still read it");
    let copied: HashSet<usize> = again
        .iter()
        .filter_map(|a| match a {
            Action::Copy { part, .. } => Some(*part),
            _ => None,
        })
        .collect();
    assert_eq!(copied, HashSet::from([0, 1]));
}
