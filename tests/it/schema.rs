//! The schema of a database: the commands that may change it, and the versions of the program that run on it.

use sqlx::{Connection as _, PgConnection};

use crate::databases::Database;
use crate::harness::{SCRIPTED_TEXT, fixture};
use crate::program::Installation;

/// The schema of a version before this one.
const OLD: i64 = 6;

/// Commands that need the database's tables and must not change them.
const COMMANDS: [&str; 11] = [
    "usage",
    "audit",
    "tenant list",
    "tenant show acme",
    "tenant create beta",
    "tenant set acme --rpm 1",
    "tenant disable acme",
    "key list",
    "key create acme",
    "key revoke aaaaaaaaaaaa",
    "serve",
];

async fn installation(database: &Database) -> Installation {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("DATABASE__URL", &database.url);
    installation
}

#[tokio::test]
async fn only_serve_and_migrate_change_an_old_schema() {
    for database in Database::of_each_engine().await {
        database.migrate_to(OLD).await;
        let mut installation = installation(&database).await;
        std::fs::write(installation.folder.path().join("page.png"), fixture("hello.png")).unwrap();
        let before = database.schema().await;
        for command in COMMANDS {
            // Only `serve` migrates, unless the setting says otherwise.
            installation.set("DATABASE__MIGRATE", (command != "serve").to_string());
            let ended = installation.run(command).await;
            assert_eq!(ended.code, 1, "{command}: {}{}", ended.out, ended.err);
            assert!(ended.err.contains("run `ocr-gateway migrate`"), "{command}: {}", ended.err);
            assert_eq!(database.schema().await, before, "{command}");
        }
        for command in ["check", "healthcheck", "estimate page.png"] {
            installation.run(command).await;
            assert_eq!(database.schema().await, before, "{command}");
        }
        assert_eq!(installation.run("migrate").await.code, 0);
        assert_ne!(database.schema().await, before);
        assert_eq!(installation.run("usage").await.code, 0);
    }
}

/// All other queries of the table would wait for the migration.
#[tokio::test]
async fn a_migration_gives_up_on_a_table_that_a_dump_reads_and_changes_nothing() {
    let Some(database) = Database::postgres().await else { return };
    database.migrate_to(8).await;
    let before = database.schema().await;
    let installation = installation(&database).await;
    let mut dump = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM ledger_entries").execute(&mut dump).await.unwrap();
    let ended = installation.run("migrate").await;
    assert_eq!(ended.code, 1, "{}{}", ended.out, ended.err);
    assert!(ended.err.contains("lock timeout"), "{}", ended.err);
    assert_eq!(database.schema().await, before);
    dump.close().await.unwrap();
    assert_eq!(installation.run("migrate").await.code, 0);
}

#[tokio::test]
async fn a_command_that_does_not_migrate_makes_no_database() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    for command in ["usage", "tenant create acme", "check"] {
        let ended = installation.run(command).await;
        let told = format!("{}{}", ended.out, ended.err);
        assert!(
            told.contains("gateway.db") && told.contains("does not exist"),
            "{command}: {told}"
        );
        assert!(!installation.folder.path().join("gateway.db").exists(), "{command}");
    }
}

/// A migration of a newer version, which this program does not know.
const NEWER: &str = "
    ALTER TABLE tenants ADD COLUMN of_a_newer_version TEXT;
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    SELECT 9999, 'newer', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";

/// It only adds to the schema.
const EXPANDS: &str = "INSERT INTO schema_compatibility VALUES (9999, 8)";

/// It removes something that this program needs.
const CONTRACTS: &str =
    "UPDATE schema_compatibility SET oldest_compatible = 9999 WHERE version = 9999";

#[tokio::test]
async fn a_version_runs_on_a_newer_schema_that_only_expanded_and_refuses_one_that_contracted() {
    for database in Database::of_each_engine().await {
        let mut installation = installation(&database).await;
        let key = installation.key("acme").await;
        database.execute(NEWER).await;
        database.execute(EXPANDS).await;
        let migrated = installation.run("migrate").await;
        assert_eq!(migrated.code, 0, "{}", migrated.err);
        assert!(migrated.err.contains("newer than this version"), "{}", migrated.err);
        for migrates in ["true", "false"] {
            installation.set("DATABASE__MIGRATE", migrates);
            let service = installation.serve().await;
            let answer = service.post(&key, "/ocr").body(fixture("hello.png")).send().await;
            assert_eq!(answer.unwrap().status(), 200);
            assert_eq!(installation.run("usage").await.code, 0);
            database.execute(CONTRACTS).await;
            for command in ["serve", "migrate", "usage", "tenant list"] {
                let ended = installation.run(command).await;
                assert_eq!(ended.code, 1, "{command}");
                let told = "too new for this version of the program: migration 9999 needs";
                assert!(ended.err.contains(told), "{command}: {}", ended.err);
            }
            database.execute("UPDATE schema_compatibility SET oldest_compatible = 8").await;
        }
    }
}

#[tokio::test]
async fn a_check_says_how_the_schema_compares_and_who_migrates_it() {
    for database in Database::of_each_engine().await {
        let mut installation = installation(&database).await;
        database.migrate_to(OLD).await;
        let check = async |installation: &Installation| {
            let ended = installation.run("check").await;
            let line = ended.out.lines().find(|line| line.contains(" database: "));
            (ended.code, line.unwrap_or_default().to_owned())
        };
        let (code, line) = check(&installation).await;
        assert!(code == 0 && line.starts_with("ok "), "{line}");
        assert!(
            line.contains("older and lacks unknown_bills") && line.contains("`serve`"),
            "{line}"
        );
        installation.set("DATABASE__MIGRATE", "false");
        let (code, line) = check(&installation).await;
        assert!(code == 1 && line.starts_with("failed "), "{line}");
        assert!(line.contains("run `ocr-gateway migrate`"), "{line}");
        assert_eq!(installation.run("migrate").await.code, 0);
        let (code, line) = check(&installation).await;
        assert!(code == 0 && line.ends_with("answers and is up to date"), "{line}");
        database.execute(NEWER).await;
        database.execute(EXPANDS).await;
        let (code, line) = check(&installation).await;
        assert!(code == 0 && line.contains("newer: it has migration 9999"), "{line}");
        database.execute(CONTRACTS).await;
        let (code, line) = check(&installation).await;
        assert!(code == 1 && line.contains("too new for this version"), "{line}");
    }
}
