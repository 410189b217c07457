//! docs/first-five-minutes.md against the memory plan.

use serde_json::Value;

use crate::memory::sandbox_14b;
use crate::support::{repo_path, stdout};

/// How far a number of the page may be from the plan's, as a part of it, or in GiB.
const TOLERANCE: (f64, f64) = (0.1, 0.3);

#[test]
fn the_table_of_cards_is_the_plan() {
    let page = std::fs::read_to_string(repo_path("docs/first-five-minutes.md")).unwrap();
    let sandbox = sandbox_14b();
    let mut rows = 0;
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [card, picture, swapped, vram, ram] = cells[..] else { continue };
        let Some((width, height)) = picture.split_once('x') else { continue };
        let job = ["info", "--json", "--model", "big.toml", "--no-adjust-resolution", "--max-ram", "64GB"];
        let place = if card == "none" { ["--device", "cpu"] } else { ["--max-vram", card] };
        let args = [&job[..], &["--width", width, "--height", height], &place].concat();
        let info: Value = serde_json::from_str(&stdout(&sandbox.ok(&args))).unwrap();
        let plan = &info["job"]["planned"];
        assert_eq!(plan["fits"], true, "{line}");
        let memory = &plan["memory"];
        let blocks = |text: &str| text.split(" of ").next().unwrap().parse::<i64>().unwrap();
        let found = memory["swapped_blocks"].as_i64().unwrap();
        assert!((blocks(swapped) - found).abs() <= 2, "{line}: the plan swaps {found}");
        let peak = |keys: [&str; 2]| {
            let items = memory["items"].as_array().unwrap().iter();
            let of = |item: &Value| keys.iter().map(|key| item[key].as_u64().unwrap()).sum::<u64>();
            items.map(of).max().unwrap() as f64 / f64::from(1 << 30)
        };
        let rows_of = [
            (vram, peak(["device_weights_bytes", "device_working_bytes"])),
            (ram, peak(["host_bytes", "process_bytes"])),
        ];
        for (told, planned) in rows_of {
            let told: f64 = told.strip_suffix(" GiB").unwrap().parse().unwrap();
            let allowed = (planned * TOLERANCE.0).max(TOLERANCE.1);
            assert!(
                (told - planned).abs() <= allowed,
                "{line}: the plan says {planned:.1} GiB, the page {told}"
            );
        }
        rows += 1;
    }
    assert_eq!(rows, 8);
}

#[test]
fn the_commands_of_the_page_are_understood() {
    let page = std::fs::read_to_string(repo_path("docs/first-five-minutes.md")).unwrap();
    let more = std::fs::read_to_string(repo_path("docs/more-videos.md")).unwrap();
    let text = page + &more.replace("\\\n", " ");
    let help = {
        let sandbox = crate::support::Sandbox::new();
        let of = |args: &[&str]| stdout(&sandbox.ok(args));
        of(&["--help"]) + &of(&["info", "--help"]) + &of(&["doctor", "--help"])
    };
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let known: std::collections::HashSet<&str> =
        help.split(|c| !word(c)).filter_map(|word| word.strip_prefix("--")).collect();
    let mut options = 0;
    for word in text.split(|c: char| c.is_whitespace() || "`|;,.()".contains(c)) {
        if let Some(name) = word.strip_prefix("--").filter(|name| name.starts_with(char::is_alphabetic)) {
            assert!(known.contains(name.split('=').next().unwrap_or(name)), "--{name}");
            options += 1;
        }
    }
    assert!(options > 40, "{options}");
}
