//! AlterPartition at a leader: what became of its proposals of who is in sync.

use super::Broker;
use crate::node::Effects;
use crate::protocol::cluster::AlterPartitionResponse;
use crate::time::SimTime;

impl Broker {
    /// The controller answered [`Session::alter_partitions`](super::session::Session), or, with
    /// `None`, the connection to it broke before.
    #[expect(clippy::unused_self, reason = "followers come with the replication of data")]
    pub(super) fn on_alter_partition(
        &mut self,
        _now: SimTime,
        _response: Option<AlterPartitionResponse>,
        _effects: &mut Effects,
    ) {
    }

    /// There is a session with the controller again, or the first one: what waits for it can be
    /// sent.
    #[expect(clippy::unused_self, reason = "followers come with the replication of data")]
    pub(super) fn on_session(&mut self, _now: SimTime, _effects: &mut Effects) {}

    /// The image shows brokers that came, went, or changed.
    #[expect(clippy::unused_self, reason = "followers come with the replication of data")]
    pub(super) fn on_brokers_changed(&mut self, _now: SimTime, _effects: &mut Effects) {}
}
