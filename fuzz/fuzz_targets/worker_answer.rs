//! What lazaretd makes of a worker's message: a worker may have been taken over.

#![no_main]

use lazaret_api::scan::v1::{FromWorker, from_worker::Message};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

#[allow(dead_code, unreachable_pub)]
#[path = "../../analysis-daemon/src/workers/answer.rs"]
mod answer;

fuzz_target!(|bytes: &[u8]| {
    match FromWorker::decode(bytes).ok().and_then(|message| message.message) {
        Some(Message::Members(members)) => {
            for member in members.members.into_iter().filter_map(answer::Member::new) {
                assert!(!member.digests.is_empty());
                if let Some(finding) = member.finding.clone() {
                    assert!(!member.locate(finding).rule.contains(char::is_control));
                }
            }
        }
        Some(Message::Scanned(scanned)) => drop(answer::Answer::new(scanned)),
        _ => {}
    }
});
