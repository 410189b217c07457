use super::*;

#[test]
fn settings_override_from_left_to_right() {
    let low = Settings { steps: Some(5), cfg: Some(2.0), ..Default::default() };
    let high = Settings { steps: Some(9), seed: Some(u64::MAX), ..Default::default() };
    let merged = high.or(low);
    assert_eq!((merged.steps, merged.cfg, merged.seed), (Some(9), Some(2.0), Some(u64::MAX)));
    let nan = Settings { cfg: Some(f64::NAN), ..Default::default() }.or(Settings::default());
    assert!(nan.cfg.is_some_and(f64::is_nan), "a bad value must reach the check");
    assert!(toml::from_str::<Settings>("step = 3").is_err());
    let loops = |count, counts_plays| Settings { loop_count: count, counts_plays, ..Default::default() };
    let of_graph = || loops(Some(2), Some(true));
    assert_eq!(loops(Some(3), None).or(of_graph()), loops(Some(3), None), "an option counts repetitions");
    assert_eq!(loops(None, None).or(of_graph()), of_graph());
}
