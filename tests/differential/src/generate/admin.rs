//! What administrators do.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Features, clients, place, property, topic_slot};
use crate::program::AdminStep;
use crate::slot::GroupSlot;

pub(super) fn admin_step(features: Features) -> BoxedStrategy<AdminStep> {
    if features.full_admin {
        prop_oneof![3 => basic_step(), 1 => further_step()].boxed()
    } else {
        basic_step().boxed()
    }
}

fn basic_step() -> impl Strategy<Value = AdminStep> {
    prop_oneof![
        4 => (topic_slot(), clients::topic())
            .prop_map(|(topic, spec)| AdminStep::CreateTopic(topic, spec)),
        2 => topic_slot().prop_map(AdminStep::DeleteTopic),
        2 => (topic_slot(), -1..6_i32)
            .prop_map(|(topic, partitions)| AdminStep::CreatePartitions(topic, partitions)),
        3 => topic_slot().prop_map(AdminStep::DescribeTopic),
        1 => Just(AdminStep::ListTopics),
        1 => Just(AdminStep::DescribeCluster),
        2 => Just(AdminStep::ListGroups),
        4 => group().prop_map(AdminStep::DescribeGroup),
        4 => group().prop_map(AdminStep::GroupOffsets),
        2 => group().prop_map(AdminStep::DeleteGroup),
    ]
}

fn further_step() -> impl Strategy<Value = AdminStep> {
    let names = ["max.message.bytes", "cleanup.policy", "retention.ms", "min.insync.replicas"];
    let names = names.map(str::to_owned).to_vec();
    let changes = prop_oneof![
        Just(property("max.message.bytes", "700")),
        Just(property("max.message.bytes", "")),
        Just(property("max.message.bytes", "few")),
        Just(property("no.such.property", "1")),
    ];
    prop_oneof![
        3 => (group(), vec((place(), 0..6_i64), 1..3))
            .prop_map(|(group, offsets)| AdminStep::AlterGroupOffsets(group, offsets)),
        2 => topic_slot()
            .prop_map(move |topic| AdminStep::TopicConfig(topic, names.clone())),
        2 => (topic_slot(), changes)
            .prop_map(|(topic, changes)| AdminStep::AlterTopicConfig(topic, changes)),
        3 => (place(), -1..6_i64)
            .prop_map(|(place, before)| AdminStep::DeleteRecords(place, before)),
    ]
}

fn group() -> impl Strategy<Value = GroupSlot> {
    use GroupSlot::{G0, G1, Nobody};
    prop_oneof![6 => Just(G0), 2 => Just(G1), 1 => Just(Nobody)]
}
