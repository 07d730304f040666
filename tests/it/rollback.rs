//! A release is rolled out beside the version before it, on one database, and rolled back.

use std::env;
use std::path::PathBuf;

use crate::databases::Database;
use crate::nginx::Nginx;
use crate::rolling::{Load, Pair};

/// The program of the version before this one, which `scripts/test` builds. A run that must not skip tests fails
/// without it.
fn previous() -> Option<PathBuf> {
    let program = env::var_os("OCR_GATEWAY_PREVIOUS").map(PathBuf::from);
    let missing =
        "OCR_GATEWAY_PREVIOUS names no program of the version before (scripts/test builds it)";
    let is_required = env::var_os("OCR_GATEWAY_REQUIRE_PROGRAMS").is_some_and(|set| set == "1");
    assert!(program.is_some() || !is_required, "{missing}");
    if program.is_none() {
        println!("skipped: {missing}");
    }
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_before_serves_on_the_schema_of_this_one_and_after_it_and_no_request_fails() {
    let Some(previous) = previous() else { return };
    let Some(database) = Database::postgres().await else { return };
    let mut pair = Pair::on(&database).await;
    let this = pair.installation.switch_to(previous.clone());
    let mut replicas = [pair.start(0).await, pair.start(1).await];
    let Some(nginx) = Nginx::before(&pair.addresses).await else { return };
    let key = pair.installation.key("acme").await;
    let before = database.schema().await;
    let load = Load::on(&nginx, &key);

    // Roll out: the first replica of this version migrates, beside one of the version before.
    pair.installation.switch_to(this.clone());
    pair.restart(0, &mut replicas[0]).await;
    let migrated = database.schema().await;
    assert_ne!(migrated, before, "tests/previous-version names a commit with fewer migrations");
    // The version before starts again on this version's schema.
    pair.installation.switch_to(previous.clone());
    pair.restart(1, &mut replicas[1]).await;
    let check = pair.installation.run("check").await;
    assert!(check.code == 0 && check.out.contains("its schema is newer"), "{}", check.out);
    for command in ["usage", "audit", "key list"] {
        let ended = pair.installation.run(command).await;
        assert_eq!(ended.code, 0, "{command}: {}{}", ended.out, ended.err);
    }
    // Roll back: no replica of this version is left.
    pair.restart(0, &mut replicas[0]).await;
    assert_eq!(database.schema().await, migrated, "a rollback leaves the schema");
    // Roll out again.
    pair.installation.switch_to(this);
    for (index, replica) in replicas.iter_mut().enumerate() {
        pair.restart(index, replica).await;
    }
    assert_eq!(database.schema().await, migrated);
    load.end(&database, &pair, &nginx).await;

    for program in [None, Some(previous)] {
        program.map(|program| pair.installation.switch_to(program));
        let audit = pair.installation.run("audit").await;
        assert!(audit.code == 0 && audit.out.starts_with("balanced"), "{}{}", audit.out, audit.err);
    }
}
