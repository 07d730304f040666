//! Numbers in the manifests, in `docker-compose.yml` and in the runbook's nginx configuration that depend on settings
//! of the gateway.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use ocr_gateway::settings::Settings;
use serde_json::{Value, json};

/// Time of a stop in addition to its grace and its drain: 11 s, and a reserve.
const LAST_SECONDS: u64 = 16;

/// The body limit of a proxy in front of the gateway, above `server.max_body_bytes`.
const ROOM_AT_THE_EDGE: u64 = 4 << 20;

/// A file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&read(path)).unwrap()
}

fn defaults() -> Settings {
    Settings::load_with(None, HashMap::new()).unwrap()
}

/// The settings of a pod.
fn of_the_pod() -> Settings {
    let map = yaml("deploy/kubernetes/configmap.yaml");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(map["data"]["config.toml"].as_str().unwrap().as_bytes()).unwrap();
    Settings::load_with(Some(file.path()), HashMap::new()).unwrap()
}

fn pod() -> Value {
    let deployment = yaml("deploy/kubernetes/deployment.yaml");
    deployment["spec"]["template"]["spec"].clone()
}

fn ingress(annotation: &str) -> String {
    let ingress = yaml("deploy/kubernetes/ingress.yaml");
    let name = format!("nginx.ingress.kubernetes.io/{annotation}");
    ingress["metadata"]["annotations"][name].as_str().unwrap().to_owned()
}

/// The value of a directive in the runbook's configuration of nginx.
fn directive(name: &str) -> String {
    let runbook = read("docs/runbook.md");
    let snippet = runbook.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
    let line = snippet.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
    line.split(';').next().unwrap().trim().to_owned()
}

fn compose() -> Value {
    yaml("docker-compose.yml")["services"].clone()
}

/// A number of bytes or seconds with a unit, in the notation of these files.
fn number(text: &str) -> u64 {
    let digits = text.trim_end_matches(|letter: char| letter.is_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "Mi" => 1 << 20,
        "g" | "Gi" => 1 << 30,
        unknown => panic!("{unknown}"),
    };
    digits.parse::<u64>().unwrap() * unit
}

#[test]
fn a_stop_may_last_until_the_longest_page_is_finished() {
    let pods = pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
    let composed = number(compose()["gateway"]["stop_grace_period"].as_str().unwrap());
    for (settings, given) in [(of_the_pod(), pods), (defaults(), composed)] {
        let server = settings.server;
        assert!(server.drain_timeout() > server.request_timeout(), "{:?}", server.drain_timeout());
        let stop = (server.drain_grace() + server.drain_timeout()).as_secs() + LAST_SECONDS;
        assert!(stop <= given, "a stop takes {stop} s of {given} s");
    }
}

#[test]
fn what_is_too_large_is_refused_by_the_gateway_and_not_by_the_edge() {
    for edge in [ingress("proxy-body-size"), directive("client_max_body_size")] {
        let least = of_the_pod().server.max_body_bytes + ROOM_AT_THE_EDGE;
        assert!(number(&edge) >= least, "{edge} is below {least}");
    }
}

#[test]
fn the_gateway_ends_a_request_before_the_edge_does() {
    let names = ["read", "send"];
    let annotations = names.map(|name| ingress(&format!("proxy-{name}-timeout")));
    let directives = names.map(|name| directive(&format!("proxy_{name}_timeout")));
    for edge in annotations.iter().chain(&directives) {
        assert!(number(edge) > of_the_pod().server.request_timeout().as_secs(), "{edge}");
    }
}

#[test]
fn all_replicas_together_leave_the_database_connections_for_others() {
    let scaler = yaml("deploy/kubernetes/horizontalpodautoscaler.yaml");
    let replicas = scaler["spec"]["maxReplicas"].as_u64().unwrap();
    let connections = u64::from(of_the_pod().database.max_connections.get()) * replicas;
    // PostgreSQL's default is 100.
    assert!(connections <= 80, "{connections}");
}

#[test]
fn the_autoscaler_has_no_target_that_a_full_pod_does_not_reach() {
    let scaler = yaml("deploy/kubernetes/horizontalpodautoscaler.yaml");
    let metrics = scaler["spec"]["metrics"].as_array().unwrap();
    let names: Vec<_> = metrics.iter().map(|metric| &metric["resource"]["name"]).collect();
    assert_eq!(names, ["cpu"]);
}

#[test]
fn names_are_resolved_wherever_the_cluster_resolves_them() {
    let policy = yaml("deploy/kubernetes/networkpolicy.yaml");
    let rules = policy["spec"]["egress"].as_array().unwrap();
    let anywhere = rules.iter().filter(|rule| rule["to"].is_null());
    let ports: Vec<_> = anywhere.flat_map(|rule| rule["ports"].as_array().unwrap()).collect();
    for port in [53, 5353] {
        for protocol in ["UDP", "TCP"] {
            assert!(ports.contains(&&json!({ "port": port, "protocol": protocol })), "{port}");
        }
    }
}

#[test]
fn compose_bounds_the_memory_as_the_pod_does_and_starts_again_what_ended() {
    let (pod, services) = (pod(), compose());
    let of_pod = pod["containers"][0]["resources"]["limits"]["memory"].as_str().unwrap();
    let of_compose = services["gateway"]["mem_limit"].as_str().unwrap();
    assert_eq!(number(of_compose), number(of_pod));
    for (name, service) in services.as_object().unwrap() {
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(service["mem_limit"].is_string(), "{name}");
    }
}
