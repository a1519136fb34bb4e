//! Options of `sim://` URLs: read, and refused.

use super::*;

fn config(options: &str) -> Result<SimConfig> {
    SimConfig::from_url(&format!("sim://?{options}").parse()?)
}

#[test]
fn policies_are_those_of_today_unless_said() {
    let today = SimConfig::default();
    assert!(today.client.offset_fetch_requires_stable);
    assert!(!today.client.timeout_reuses_sequences && !today.client.epoch_bump_keeps_transaction);
    assert!(today.broker.transaction_partition_verification);
    let before = config(
        "transaction.partition.verification.enable=false&offset.fetch.require.stable=false\
         &delivery.timeout.reuses.sequences=true&epoch.bump.keeps.transaction=true",
    );
    let before = before.unwrap();
    assert!(!before.client.offset_fetch_requires_stable);
    assert!(before.client.timeout_reuses_sequences && before.client.epoch_bump_keeps_transaction);
    assert!(!before.broker.transaction_partition_verification);
}

#[test]
fn a_policy_is_true_or_false() {
    for name in [
        "abort.reuses.sequences",
        "transaction.partition.verification.enable",
        "offset.fetch.require.stable",
        "delivery.timeout.reuses.sequences",
        "epoch.bump.keeps.transaction",
    ] {
        assert!(SimConfig::OPTIONS.contains(&name), "{name} is offered");
        for value in ["", "yes", "1", "TRUE"] {
            let error = config(&format!("{name}={value}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains("must be true or false"), "{error}");
        }
    }
}

#[test]
fn an_unknown_option_names_those_that_there_are() {
    let error = config("offset.fetch.requires.stable=true").unwrap_err();
    assert!(error.to_string().contains("offset.fetch.require.stable"), "{error}");
}

#[test]
fn truncation_is_one_of_two() {
    let truncation = |options| config(options).unwrap().broker.truncation;
    assert_eq!(truncation(""), Truncation::ByLeaderEpoch);
    assert_eq!(truncation("truncation=high-watermark"), Truncation::ToHighWatermark);
    let error = config("truncation=never").unwrap_err();
    assert!(error.to_string().contains(" must be "), "{error}");
}
