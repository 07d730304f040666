//! A broken call may have been billed. The tenant's setting decides whether it is repeated.

use dashscope_emulator::Fault;
use ocr_gateway::auth::tenant::UnknownBill;
use reqwest::RequestBuilder;

use crate::dropin::{CHAT, GENERATION, chat, generation, streamed};
use crate::harness::{Answer, TestGateway, fixture};
use crate::program::Installation;

/// A request of each kind that spends.
fn requests(gateway: &TestGateway) -> Vec<RequestBuilder> {
    let ocr_stream = gateway.post("/ocr").header("accept", "text/event-stream");
    vec![
        gateway.post("/ocr").body(fixture("hello.png")),
        ocr_stream.body(fixture("hello.png")),
        gateway.post("/extract?template=receipt").body(fixture("hello.png")),
        gateway.post(CHAT).body(chat().to_string()),
        gateway.post(GENERATION).body(generation().to_string()),
        streamed(gateway, CHAT, chat()),
        streamed(gateway, GENERATION, generation()),
    ]
}

/// The number of calls to the upstream for each of the requests if the first answer breaks off.
async fn calls(unknown_bill: UnknownBill) -> Vec<u64> {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.unknown_bill = unknown_bill;
        // Otherwise the endpoint's breaker would open.
        setup.settings.upstream.breaker_failures = 100;
    })
    .await;
    let mut calls = Vec::new();
    for request in requests(&gateway) {
        let before = gateway.upstream().bill().received;
        gateway.upstream().add_fault(Fault::reset().after_inference().times(1));
        Answer::of(request).await;
        calls.push(gateway.upstream().bill().received - before);
    }
    calls
}

#[tokio::test]
async fn a_call_that_may_have_been_billed_is_made_again_unless_its_tenant_would_rather_fail() {
    assert_eq!(calls(UnknownBill::Repeat).await, [2; 7]);
    assert_eq!(calls(UnknownBill::Fail).await, [1; 7]);
}

#[tokio::test]
async fn a_tenant_of_the_database_or_of_a_file_can_have_it_switched_off() {
    let installation = Installation::reading("text").await;
    assert_eq!(installation.run("migrate").await.code, 0);
    assert_eq!(installation.run("tenant create acme").await.code, 0);
    let shown = installation.run("tenant show acme --json").await;
    assert!(shown.out.contains("\"unknown_bill\": \"repeat\""), "{}", shown.out);
    assert_eq!(installation.run("tenant set acme --unknown-bill fail").await.code, 0);
    let shown = installation.run("tenant show acme").await;
    assert!(shown.out.contains("unknown_bill    fail"), "{}", shown.out);
    for (word, code) in [("fail", 0), ("maybe", 1)] {
        let content = format!("[tenants.filed]\nunknown_bill = \"{word}\"\n");
        std::fs::write(installation.folder.path().join("gateway.toml"), content).unwrap();
        let ended = installation.run("check --config gateway.toml").await;
        assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
    }
}
