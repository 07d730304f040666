//! The `bound` of `/estimate` holds every call that the same request can make, its repeats included.

use dashscope_emulator::{EngineChoice, Fault};
use ocr_gateway::auth::tenant::{Tenant, UnknownBill};

use crate::escalation::{picture_width, receipt};
use crate::extract_pages::RECEIPT;
use crate::harness::{TestGateway, fixture};
use crate::pages::numbered;

const SCHEMA: &str = r#"{"type":"object","properties":{"no":{"type":"string"}},"required":["no"]}"#;

async fn gateway(change: impl FnOnce(&mut Tenant)) -> TestGateway {
    TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted(RECEIPT.to_owned());
        change(&mut setup.tenant);
    })
    .await
}

/// The members of the bound of this request.
async fn bound(gateway: &TestGateway, query: &str, file: Vec<u8>) -> impl Fn(&str) -> u64 + use<> {
    let estimate = gateway.upload(&format!("/estimate?{query}"), file).await;
    assert_eq!(estimate.status, 200, "{}", estimate.text);
    move |member| estimate.json["bound"][member].as_u64().unwrap()
}

/// Asserts that what was billed in so many calls is within the bound, and that no other image could be billed.
fn assert_all_is_used(gateway: &TestGateway, calls: u64, bound: impl Fn(&str) -> u64) {
    let bill = gateway.upstream().bill();
    assert_eq!((bill.calls, bill.image), (calls, bound("image_tokens")));
    assert!(bill.total() <= bound("total_tokens"), "{bill:?}");
}

#[tokio::test]
async fn fields_that_must_be_asked_for_twice_on_each_page_stay_within_the_bound() {
    let gateway = gateway(|_| {}).await;
    let query = format!("schema={SCHEMA}&dpi=72");
    let bound = bound(&gateway, &query, numbered(3)).await;
    gateway.upstream().add_fault(Fault::prose_for_result());
    let answer = gateway.upload(&format!("/extract?{query}"), numbered(3)).await;
    assert_eq!(answer.code(), "upstream_invalid_output", "{}", answer.text);
    assert_all_is_used(&gateway, 6, bound);
}

#[tokio::test]
async fn a_text_beside_fields_is_read_once_and_stays_within_the_bound() {
    let gateway = gateway(|_| {}).await;
    let query = format!("schema={SCHEMA}&ground=true");
    let bound = bound(&gateway, &query, fixture("hello.png")).await;
    gateway.upstream().add_fault(Fault::prose_for_result().times(1));
    let answer = gateway.upload(&format!("/extract?{query}"), fixture("hello.png")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_all_is_used(&gateway, 3, bound);
}

#[tokio::test]
async fn a_page_that_is_read_again_has_all_its_repeats_in_the_bound() {
    let gateway = gateway(|tenant| (tenant.auto_pixels, tenant.escalate) = (true, true)).await;
    let query = format!("schema={SCHEMA}&ground=true");
    let small = gateway.upload(&format!("/estimate?{query}"), receipt()).await.json;
    let large = format!("/estimate?max_pixels={}", small["limits"]["max_pixels"]);
    let large = gateway.upload(&large, receipt()).await.json;
    let bound = bound(&gateway, &query, receipt()).await;
    for estimate in [&small, &large] {
        let prose = Fault::prose_for_result().for_bodies_with("key_information_extraction");
        let width = picture_width(estimate);
        gateway.upstream().add_fault(prose.for_images_as_wide_as(width).times(1));
    }
    let answer = gateway.upload(&format!("/extract?{query}"), receipt()).await;
    let page = &answer.json["pages"][0];
    assert_eq!(page["sent"]["escalated"], true, "{}", answer.text);
    assert_all_is_used(&gateway, 6, bound);
}

#[tokio::test]
async fn an_attempt_whose_bill_stays_unknown_counts_within_the_bound_if_it_may_be_repeated() {
    for (unknown_bill, status) in [(UnknownBill::Repeat, 200), (UnknownBill::Fail, 502)] {
        let gateway = gateway(|tenant| tenant.unknown_bill = unknown_bill).await;
        let bound = bound(&gateway, "", fixture("hello.png")).await;
        gateway.upstream().add_fault(Fault::cut_body_at(9).times(1));
        let answer = gateway.upload("/ocr", fixture("hello.png")).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        let usage = |member: &str| answer.json["usage"][member].as_u64().unwrap();
        assert_eq!(usage("unverified_tokens"), bound("total_tokens"));
        assert!(usage("total_tokens") <= bound("total_tokens"));
        let counted = usage("total_tokens") + usage("unverified_tokens");
        assert!(counted <= bound("total_tokens") + bound("unverified_tokens"));
        let is_repeated = unknown_bill == UnknownBill::Repeat;
        assert_eq!(bound("unverified_tokens") > 0, is_repeated);
    }
}

#[tokio::test]
async fn no_attempt_is_repeated_where_the_operator_allows_one() {
    let gateway = TestGateway::with(|setup| setup.settings.upstream.max_attempts = 1).await;
    let bound = bound(&gateway, "", fixture("hello.png")).await;
    assert_eq!(bound("unverified_tokens"), 0);
    gateway.upstream().add_fault(Fault::cut_body_at(9).times(1));
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(answer.json["usage"]["unverified_tokens"], bound("total_tokens"));
}
