//! promtool tests the rules of `deploy/alerts`, and the runbook has a section for each rule.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{TestGateway, fixture};

const RULES: &str = include_str!("../../deploy/alerts/ocr-gateway.rules.yml");
const TESTS: [&str; 2] = [
    include_str!("../../deploy/alerts/tests/hours.yml"),
    include_str!("../../deploy/alerts/tests/minutes.yml"),
];
const RUNBOOK: &str = include_str!("../../docs/runbook.md");

/// Cases that promtool must have tested for each alert.
const CASES: [&str; 4] =
    ["fires", "is silent", "sees the first event of a new series", "survives a restart"];

fn alerts() -> Vec<Value> {
    let rules: Value = serde_yaml_ng::from_str(RULES).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn names() -> Vec<String> {
    alerts().iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect()
}

/// The anchors that GitHub creates for headings in Markdown.
fn anchors() -> Vec<String> {
    let headings = RUNBOOK.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept =
            words.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn each_alert_leads_to_a_section_of_the_runbook() {
    let anchors = anchors();
    for alert in alerts() {
        let (name, url) = (&alert["alert"], alert["annotations"]["runbook_url"].as_str().unwrap());
        let (page, anchor) = url.split_once('#').unwrap();
        assert!(page.ends_with("/docs/runbook.md"), "{name}: {url}");
        assert!(anchors.iter().any(|known| known == anchor), "{name}: {url}");
        assert!(["page", "ticket"].contains(&alert["labels"]["severity"].as_str().unwrap()));
        assert!(alert["annotations"]["summary"].is_string(), "{name}");
    }
}

#[test]
fn each_section_on_an_alert_is_of_an_alert_that_exists() {
    let section = RUNBOOK.split("\n## Alerts\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let headings = section.lines().filter_map(|line| line.strip_prefix("### "));
    let (told, existing): (BTreeSet<_>, BTreeSet<_>) =
        (headings.map(str::to_owned).collect(), names().into_iter().collect());
    assert_eq!(told, existing);
}

#[test]
fn each_link_within_the_runbook_leads_somewhere() {
    let anchors = anchors();
    let links = RUNBOOK.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap());
    for link in links {
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link}");
    }
}

#[test]
fn each_alert_is_tried_in_four_cases() {
    let tests = TESTS.iter().flat_map(|text| {
        let file: Value = serde_yaml_ng::from_str(text).unwrap();
        file["tests"].as_array().unwrap().clone()
    });
    let tests: Vec<_> = tests.collect();
    let tried: BTreeSet<_> =
        tests.iter().map(|test| test["name"].as_str().unwrap().to_owned()).collect();
    let wanted = names().into_iter();
    let wanted: BTreeSet<_> =
        wanted.flat_map(|name| CASES.map(|case| format!("{name}: {case}"))).collect();
    assert_eq!(tried, wanted);
    for test in &tests {
        let (name, rules) = (test["name"].as_str().unwrap(), &test["alert_rule_test"]);
        assert!(!rules.as_array().unwrap().is_empty(), "{name}");
        for rule in rules.as_array().unwrap() {
            assert!(name.starts_with(&format!("{}: ", rule["alertname"].as_str().unwrap())));
            let fired = rule["exp_alerts"].as_array().unwrap().len();
            let is_silent = name.ends_with(": is silent");
            assert!(if name.ends_with(": fires") { fired > 0 } else { !is_silent || fired == 0 });
        }
    }
}

#[tokio::test]
async fn each_metric_of_an_alert_is_one_that_the_gateway_has() {
    let gateway = TestGateway::start().await;
    gateway.upload("/ocr", fixture("hello.png")).await;
    let metrics = gateway.metrics().await;
    // These exist only with Redis, with a tenant that has each kind of budget, after its budgets were read, and with a
    // tenant that was audited.
    let conditional = [
        "redis_up",
        "budget_tokens_settled",
        "budget_tokens_limit",
        "budget_cost_settled",
        "budget_cost_limit",
        "auto_kept_height_factor",
        "auto_audits_total",
    ];
    for alert in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let words = expression.split(|letter| !is_name(letter));
        for name in words.filter_map(|word| word.strip_prefix("ocr_gateway_")) {
            let series = name.trim_end_matches("_bucket");
            let is_there = metrics.contains(&format!("# TYPE ocr_gateway_{series} "));
            assert!(is_there || conditional.contains(&name), "{name}");
        }
    }
}

/// The path of promtool, if it is installed. A run that must not skip tests fails without it.
fn promtool() -> Option<Command> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let unpacked = target.join("promtool/usr/bin/promtool");
    let program = if unpacked.is_file() { unpacked } else { "promtool".into() };
    let found = Command::new(&program).arg("--version").output().is_ok();
    let required = std::env::var("OCR_GATEWAY_REQUIRE_PROGRAMS").is_ok_and(|value| value == "1");
    assert!(found || !required, "promtool is missing and OCR_GATEWAY_REQUIRE_PROGRAMS is 1");
    if !found {
        println!("skipped: promtool is not installed");
    }
    found.then(|| Command::new(program))
}

#[test]
fn promtool_finds_the_rules_right_in_every_case() {
    for arguments in [
        ["check", "rules", "ocr-gateway.rules.yml"],
        ["test", "rules", "tests/minutes.yml"],
        ["test", "rules", "tests/hours.yml"],
    ] {
        let Some(mut promtool) = promtool() else { return };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alerts");
        let ended = promtool.args(arguments).current_dir(folder).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        let failed = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{arguments:?}: {said}{failed}");
    }
}

#[tokio::test]
async fn promtool_finds_no_fault_with_the_metrics() {
    let Some(mut promtool) = promtool() else { return };
    let gateway = TestGateway::start().await;
    gateway.upload("/ocr", fixture("hello.png")).await;
    let metrics = gateway.metrics().await;
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = promtool.spawn().unwrap();
    let mut input = running.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, metrics.as_bytes()).unwrap();
    drop(input);
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
}
