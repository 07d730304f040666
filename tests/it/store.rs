//! The guarantees of a tenant store, tested on both engines by the same code.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a failure must say on which engine it was")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use ocr_gateway::auth::authenticator::Authenticator;
use ocr_gateway::auth::directory::Directory;
use ocr_gateway::auth::key::{ApiKey, KeyLabel, KeyRecord};
use ocr_gateway::auth::store::{TenantStore, TenantStoreError};
use ocr_gateway::auth::tenant::{OnExceed, PdfText, Tenant, TenantName, UnknownBill};
use ocr_gateway::calibration::agreement::{Agreement, Weight};
use ocr_gateway::calibration::controller::{HeightFactor, Step};
use ocr_gateway::clock::ManualClock;
use ocr_gateway::random::SeededRandom;
use ocr_gateway::store::{SchemaState, StoreError};
use ocr_gateway::units::{Money, Pixels, Share};

use crate::databases::Database;

/// Checks a guarantee on an empty, migrated store of each engine.
async fn on_each_engine(promise: impl AsyncFn(&dyn TenantStore)) {
    on_each_database(async |database| {
        let store = database.open().await;
        promise(&*store.tenants()).await;
        store.close().await;
    })
    .await;
}

/// Checks a guarantee on an empty database of each engine.
async fn on_each_database(promise: impl AsyncFn(&Database)) {
    for database in Database::of_each_engine().await {
        println!("on {}", database.engine);
        promise(&database).await;
    }
}

fn name(text: &str) -> TenantName {
    text.parse().unwrap()
}

fn at(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).unwrap()
}

/// A tenant with no setting at its default.
fn limited(text: &str) -> Tenant {
    Tenant {
        max_pixels: Some(Pixels::new(786_432)),
        on_exceed: OnExceed::Reject,
        max_tokens: NonZeroU64::new(900),
        requests_per_minute: NonZeroU64::new(60),
        tokens_per_minute: NonZeroU64::new(100_000),
        concurrency: NonZeroU64::new(4),
        daily_tokens: NonZeroU64::new(1_000_000),
        monthly_tokens: NonZeroU64::new(20_000_000),
        daily_cost: Some(Money::from_nanos(1_500_000_001)),
        monthly_cost: Some(Money::from_nanos(30_000_000_000)),
        models: vec!["qwen-vl-ocr".into(), "qwen-vl-ocr-latest".into()],
        regions: vec!["virginia".into(), "beijing".into()],
        disabled: true,
        unknown_bill: UnknownBill::Fail,
        pdf_text: PdfText::Prefer,
        auto_pixels: true,
        auto_audit: Share::from_millionths(12_345).unwrap(),
        auto_aim: Share::from_millionths(950_000).unwrap(),
        escalate: true,
        cache_ttl: 3_600,
        ..Tenant::new(name(text))
    }
}

/// A key generated from `seed` and created at millisecond `seed`.
fn key_of(tenant: &str, seed: i64) -> (ApiKey, KeyRecord) {
    let (key, hash) = ApiKey::create(&SeededRandom::new(seed.unsigned_abs()));
    let record = KeyRecord::new(&key, hash, name(tenant), at(seed));
    (key, record)
}

async fn with_tenant(store: &dyn TenantStore, text: &str) {
    store.create_tenant(&Tenant::new(name(text))).await.unwrap();
}

#[tokio::test]
async fn a_tenant_comes_back_as_it_was_written() {
    on_each_engine(async |store| {
        for tenant in [Tenant::new(name("free")), limited("limited")] {
            store.create_tenant(&tenant).await.unwrap();
            assert_eq!(store.tenant(&tenant.name).await.unwrap(), Some(tenant));
        }
    })
    .await;
}

#[tokio::test]
async fn the_largest_limit_comes_back_whole() {
    on_each_engine(async |store| {
        let most = i64::MAX.unsigned_abs();
        let (count, amount) = (NonZeroU64::new(most), Some(Money::from_nanos(most)));
        let tenant = Tenant {
            max_pixels: Some(Pixels::new(most)),
            max_tokens: count,
            requests_per_minute: count,
            tokens_per_minute: count,
            concurrency: count,
            daily_tokens: count,
            monthly_tokens: count,
            daily_cost: amount,
            monthly_cost: amount,
            ..Tenant::new(name("a"))
        };
        let tenant = tenant.checked().unwrap();
        store.create_tenant(&tenant).await.unwrap();
        assert_eq!(store.tenant(&name("a")).await.unwrap(), Some(tenant));
    })
    .await;
}

#[tokio::test]
async fn a_taken_name_is_refused_and_its_tenant_stays() {
    on_each_engine(async |store| {
        with_tenant(store, "a").await;
        let refusal = store.create_tenant(&limited("a")).await.unwrap_err();
        assert!(matches!(refusal, TenantStoreError::TenantExists(taken) if taken == name("a")));
        assert_eq!(store.tenant(&name("a")).await.unwrap(), Some(Tenant::new(name("a"))));
    })
    .await;
}

#[tokio::test]
async fn of_many_creations_of_one_name_at_once_exactly_one_succeeds() {
    on_each_database(async |database| {
        let store = database.open().await;
        let mut creations = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let tenants = store.tenants();
            creations.spawn(async move { tenants.create_tenant(&limited("a")).await.is_ok() });
        }
        let created = creations.join_all().await;
        assert_eq!(created.iter().filter(|created| **created).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_update_replaces_every_setting() {
    on_each_engine(async |store| {
        with_tenant(store, "a").await;
        assert!(store.update_tenant(&limited("a")).await.unwrap());
        assert_eq!(store.tenant(&name("a")).await.unwrap(), Some(limited("a")));
        assert!(store.update_tenant(&Tenant::new(name("a"))).await.unwrap());
        assert_eq!(store.tenant(&name("a")).await.unwrap(), Some(Tenant::new(name("a"))));
    })
    .await;
}

#[tokio::test]
async fn what_is_absent_is_told_and_is_no_error() {
    on_each_engine(async |store| {
        let (key, _) = key_of("a", 1);
        assert!(store.tenant(&name("a")).await.unwrap().is_none());
        assert!(store.tenants().await.unwrap().is_empty());
        assert!(!store.update_tenant(&limited("a")).await.unwrap());
        assert!(store.key(key.id()).await.unwrap().is_none());
        assert!(store.keys(None).await.unwrap().is_empty());
        assert!(!store.revoke_key(key.id(), at(1)).await.unwrap());
        assert!(store.tenant(&name("a")).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn tenants_are_listed_in_the_byte_order_of_their_names() {
    on_each_engine(async |store| {
        let ordered = ["a", "a-c", "a.b", "a0", "a_a", "aa", "b"];
        for text in ["b", "aa", "a_a", "a.b", "a-c", "a0", "a"] {
            with_tenant(store, text).await;
        }
        let tenants = store.tenants().await.unwrap();
        let names: Vec<_> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        assert_eq!(names, ordered);
    })
    .await;
}

#[tokio::test]
async fn a_key_comes_back_as_it_was_written_with_its_tenant_as_it_is_now() {
    on_each_engine(async |store| {
        with_tenant(store, "a").await;
        let label: KeyLabel = "nightly ünïcode".parse().unwrap();
        let (_, key) = key_of("a", 1_767_225_600_123);
        let expires_at = Some(at(1_893_456_000_456));
        let key = KeyRecord { expires_at, label: Some(label), ..key };
        store.create_key(&key).await.unwrap();
        store.update_tenant(&limited("a")).await.unwrap();
        let (read, tenant) = store.key(&key.id).await.unwrap().unwrap();
        assert!(read.hash.matches(&key.hash));
        assert_eq!(format!("{read:?}"), format!("{key:?}"));
        assert_eq!(tenant, limited("a"));
    })
    .await;
}

#[tokio::test]
async fn a_key_of_an_unknown_tenant_is_refused_by_name() {
    on_each_engine(async |store| {
        let (_, key) = key_of("nobody", 1);
        let refusal = store.create_key(&key).await.unwrap_err();
        assert!(matches!(refusal, TenantStoreError::NoSuchTenant(tenant) if tenant == key.tenant));
    })
    .await;
}

#[tokio::test]
async fn a_taken_key_id_is_refused_and_its_key_stays() {
    on_each_engine(async |store| {
        with_tenant(store, "a").await;
        let (_, key) = key_of("a", 1);
        store.create_key(&key).await.unwrap();
        let (_, another) = key_of("a", 2);
        let same_id = KeyRecord { id: key.id.clone(), ..another };
        let refusal = store.create_key(&same_id).await.unwrap_err();
        assert!(matches!(refusal, TenantStoreError::KeyExists(id) if id == key.id));
        assert!(store.key(&key.id).await.unwrap().unwrap().0.hash.matches(&key.hash));
    })
    .await;
}

#[tokio::test]
async fn keys_are_listed_by_tenant_then_age() {
    on_each_engine(async |store| {
        with_tenant(store, "a-c").await;
        with_tenant(store, "a.b").await;
        for (tenant, made_at) in [("a.b", 1), ("a-c", 3), ("a-c", 2)] {
            store.create_key(&key_of(tenant, made_at).1).await.unwrap();
        }
        let order = |keys: Vec<KeyRecord>| -> Vec<_> {
            keys.iter().map(|key| key.created_at.as_millisecond()).collect()
        };
        assert_eq!(order(store.keys(None).await.unwrap()), [2, 3, 1]);
        assert_eq!(order(store.keys(Some(&name("a-c"))).await.unwrap()), [2, 3]);
    })
    .await;
}

#[tokio::test]
async fn revoking_twice_keeps_the_first_time() {
    on_each_engine(async |store| {
        with_tenant(store, "a").await;
        let (_, key) = key_of("a", 1);
        store.create_key(&key).await.unwrap();
        assert!(store.revoke_key(&key.id, at(5)).await.unwrap());
        assert!(store.revoke_key(&key.id, at(9)).await.unwrap());
        let (read, _) = store.key(&key.id).await.unwrap().unwrap();
        assert_eq!(read.revoked_at, Some(at(5)));
    })
    .await;
}

#[tokio::test]
async fn revoking_one_key_leaves_the_tenants_other_key_and_account() {
    on_each_engine(async |store| {
        store.create_tenant(&limited("a")).await.unwrap();
        let ((_, old), (_, new)) = (key_of("a", 1), key_of("a", 2));
        store.create_key(&old).await.unwrap();
        store.create_key(&new).await.unwrap();
        store.revoke_key(&old.id, at(3)).await.unwrap();
        let (key, tenant) = store.key(&new.id).await.unwrap().unwrap();
        assert_eq!((key.revoked_at, tenant), (None, limited("a")));
    })
    .await;
}

#[tokio::test]
async fn a_revocation_on_one_replica_binds_on_another_within_a_second() {
    on_each_database(async |database| {
        let (here, there) = (database.open().await, database.connect().await);
        let (key, record) = key_of("a", 1);
        with_tenant(&*here.tenants(), "a").await;
        here.tenants().create_key(&record).await.unwrap();
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        let directory = Directory::open(BTreeMap::new(), there.tenants()).await.unwrap();
        let authenticator = Authenticator::new(Arc::new(directory), clock.clone());
        authenticator.authenticate(key.expose()).await.unwrap();
        here.tenants().revoke_key(key.id(), at(2)).await.unwrap();
        clock.advance(Duration::from_secs(1));
        let refusal = authenticator.authenticate(key.expose()).await.unwrap_err();
        assert_eq!(refusal.reason(), "revoked");
    })
    .await;
}

#[tokio::test]
async fn no_file_of_the_database_holds_the_secret_of_a_key() {
    let database = Database::sqlite();
    let store = database.open().await;
    let (key, record) = key_of("a", 1);
    with_tenant(&*store.tenants(), "a").await;
    store.tenants().create_key(&record).await.unwrap();
    let mut stored = Vec::new();
    for file in std::fs::read_dir(database.folder()).unwrap() {
        stored.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let holds = |text: &str| stored.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(holds(key.id().as_str()));
    assert!(!holds(key.expose().rsplit('_').next().unwrap()));
}

#[tokio::test]
async fn migrating_twice_does_nothing_the_second_time() {
    on_each_database(async |database| {
        let store = database.open().await;
        with_tenant(&*store.tenants(), "a").await;
        store.migrate().await.unwrap();
        assert_eq!(store.schema().await.unwrap(), SchemaState::Same);
        assert_eq!(store.tenants().tenants().await.unwrap().len(), 1);
    })
    .await;
}

/// Reverts a database to the schema before migration `0002_budgets`.
const WITHOUT_BUDGETS: &str = "
    ALTER TABLE tenants DROP COLUMN max_tokens;
    ALTER TABLE tenants DROP COLUMN daily_tokens;
    ALTER TABLE tenants DROP COLUMN monthly_tokens;
    ALTER TABLE tenants DROP COLUMN daily_cost_nanos;
    ALTER TABLE tenants DROP COLUMN monthly_cost_nanos;
    DELETE FROM _sqlx_migrations WHERE version = 2;
";

#[tokio::test]
async fn a_tenant_from_before_the_budgets_has_none_after_the_upgrade() {
    on_each_database(async |database| {
        let store = database.open().await;
        store.tenants().create_tenant(&limited("a")).await.unwrap();
        database.execute(WITHOUT_BUDGETS).await;
        let upgraded = database.connect().await;
        upgraded.migrate().await.unwrap();
        let expected = Tenant {
            max_tokens: None,
            daily_tokens: None,
            monthly_tokens: None,
            daily_cost: None,
            monthly_cost: None,
            ..limited("a")
        };
        assert_eq!(upgraded.tenants().tenant(&name("a")).await.unwrap(), Some(expected));
    })
    .await;
}

#[tokio::test]
async fn replicas_that_start_at_once_on_a_new_database_all_succeed() {
    on_each_database(migrate_four_times_at_once).await;
}

#[tokio::test]
async fn replicas_that_start_at_once_after_an_upgrade_all_succeed() {
    on_each_database(async |database| {
        database.open().await.close().await;
        let before_the_upgrade =
            "DROP TABLE api_keys; DROP TABLE tenants; DROP TABLE ledger_holders;
             DROP TABLE ledger_entries; DROP TABLE ledger_accounts; DROP TABLE ledger_usage; DROP TABLE auto_heights;
             DROP TABLE schema_compatibility; DELETE FROM _sqlx_migrations";
        database.execute(before_the_upgrade).await;
        migrate_four_times_at_once(database).await;
    })
    .await;
}

async fn migrate_four_times_at_once(database: &Database) {
    let mut migrations = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let replica = database.connect().await;
        migrations.spawn(async move { replica.migrate().await });
    }
    for migrated in migrations.join_all().await {
        migrated.unwrap();
    }
}

#[tokio::test]
async fn every_migration_file_is_compiled_in_for_both_engines() {
    on_each_database(async |database| {
        let store = database.connect().await;
        let SchemaState::Older(compiled_in) = store.schema().await.unwrap() else {
            panic!("the database is empty")
        };
        let folder = match database.engine {
            ocr_gateway::store::Engine::Sqlite => "sqlite",
            ocr_gateway::store::Engine::Postgres => "postgres",
        };
        let numbered = (1..).zip(compiled_in).map(|(version, name)| format!("{version:04}_{name}"));
        assert_eq!(numbered.collect::<BTreeSet<_>>(), migration_files(folder));
    })
    .await;
}

#[tokio::test]
async fn every_migration_says_in_both_engines_which_programs_run_on_its_schema() {
    const FIRST_THAT_SAYS: i64 = 8;
    const SAID: &str = "SELECT m.version, c.oldest_compatible FROM _sqlx_migrations m
        LEFT JOIN schema_compatibility c ON c.version = m.version ORDER BY m.version";
    let mut all = Vec::new();
    for database in Database::of_each_engine().await {
        database.open().await.close().await;
        let said = database.numbers(SAID).await;
        for &(migration, oldest) in said.iter().filter(|(version, _)| *version >= FIRST_THAT_SAYS) {
            assert!(
                oldest.is_some_and(|oldest| (1..=migration).contains(&oldest)),
                "migration {migration} ends with INSERT INTO schema_compatibility (version, \
                 oldest_compatible) VALUES ({migration}, …): CONTRIBUTING.md says which number"
            );
        }
        all.push(said);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
}

fn migration_files(engine: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Simulates a database that a newer version has migrated.
const NEWER: &str = "
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    SELECT 9999, 'newer', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_unless_it_says_that_this_one_runs_on_it() {
    on_each_database(async |database| {
        let store = database.open().await;
        database.execute(NEWER).await;
        for refused in [store.migrate().await, store.schema().await.map(|_| ())] {
            let refusal = refused.unwrap_err();
            assert!(
                matches!(refusal, StoreError::NewerDatabase { version: 9999, .. }),
                "{refusal}"
            );
        }
        database.execute("INSERT INTO schema_compatibility VALUES (9999, 8)").await;
        assert!(matches!(store.schema().await.unwrap(), SchemaState::Newer { version: 9999, .. }));
        store.migrate().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
    on_each_database(async |database| {
        let store = database.open().await;
        database.execute("UPDATE _sqlx_migrations SET checksum = ''").await;
        let refusal = store.migrate().await.unwrap_err();
        assert!(matches!(refusal, StoreError::ChangedMigration { version: 1 }), "{refusal}");
    })
    .await;
}

/// The step of an audit of a long text, by millionths.
fn step(agreement: u32, aim: u32) -> Step {
    let [share, aim] = [agreement, aim].map(|share| Share::from_millionths(share).unwrap());
    Step::after(Agreement { share, weight: Weight::FULL }, aim)
}

#[tokio::test]
async fn each_audit_multiplies_the_factor_of_its_tenant_in_the_database() {
    let audits: Vec<_> = [(500_000, 980_000), (960_000, 980_000), (1_000_000, 980_000), (7, 8)]
        .map(|(agreement, aim)| step(agreement, aim))
        .into();
    on_each_database(async |database| {
        let store = database.open().await;
        let heights = store.heights();
        let mut expected = HeightFactor::ONE;
        for step in &audits {
            expected = expected.after(*step);
            assert_eq!(heights.apply("acme", *step).await.unwrap(), expected);
        }
        // A first audit that agrees lowers nothing, and no audit raises beyond the limit.
        let fall = audits[2];
        assert_eq!(heights.apply("other", fall).await.unwrap(), HeightFactor::ONE);
        assert_eq!(heights.apply("other", fall).await.unwrap(), HeightFactor::ONE);
        for _ in 0..20 {
            heights.apply("other", audits[0]).await.unwrap();
        }
        let mut factors = heights.factors().await.unwrap();
        factors.sort();
        let expected = [("acme".to_owned(), expected), ("other".to_owned(), HeightFactor::MOST)];
        assert_eq!(factors, expected);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn steps_of_replicas_at_once_are_all_counted() {
    on_each_database(async |database| {
        let store = database.open().await;
        let step = step(950_000, 980_000);
        let mut replicas = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let heights = store.heights();
            replicas.spawn(async move { heights.apply("acme", step).await.unwrap() });
        }
        replicas.join_all().await;
        let expected = (0..20).fold(HeightFactor::ONE, |factor, _| factor.after(step));
        assert_eq!(store.heights().factors().await.unwrap(), [("acme".to_owned(), expected)]);
        store.close().await;
    })
    .await;
}
