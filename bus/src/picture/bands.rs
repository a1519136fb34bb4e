//! What was so for a while: leadership, ownership, and what faults did.

use std::collections::BTreeMap;

use bus_check::picture::diagram::{Band, BandKind, LaneIndex};
use bus_core::{Operation, RebalanceKind};
use bus_sim::event::{Change, Place};
use bus_sim::fact::Fact;
use bus_sim::node::ClientId;
use bus_sim::{SimEvent, SimEventKind};

use super::Cast;

/// What was so for a while, in the order in which it began.
pub(super) fn bands(cast: &Cast<'_>) -> Vec<Band> {
    let mut open =
        Open { cast, bands: Vec::new(), running: BTreeMap::new(), owners: BTreeMap::new() };
    for event in cast.events {
        open.event(event);
    }
    open.bands.retain(|band| band.to != Some(band.from));
    open.bands
}

struct Open<'a> {
    cast: &'a Cast<'a>,
    bands: Vec<Band>,
    /// The bands that have not ended, by what they are: indices.
    running: BTreeMap<(BandKind, Vec<LaneIndex>, String), usize>,
    /// The consumer that owns, by the index of the band.
    owners: BTreeMap<usize, ClientId>,
}

impl Open<'_> {
    fn event(&mut self, event: &SimEvent) {
        let lane = self.cast.lanes.find(&event.place);
        match (&event.kind, lane) {
            (SimEventKind::Changed(change, _), Some(lane)) => self.changed(event, *change, lane),
            (SimEventKind::Fact(Fact::Leader { topic_partition, .. }), _)
                if self.cast.shows(topic_partition) =>
            {
                self.end_all(event, |kind, _, subject| {
                    kind == BandKind::Leads && subject == topic_partition.to_string()
                });
            }
            (
                SimEventKind::Fact(Fact::EpochStart { topic_partition, leader_epoch, .. }),
                Some(lane),
            ) if self.cast.shows(topic_partition) => {
                let subject = topic_partition.to_string();
                let same = (BandKind::Leads, vec![lane], subject);
                self.end(event, &same);
                self.begin(event, same, format!("epoch {leader_epoch}"));
            }
            (SimEventKind::Rebalance(rebalance), Some(lane)) => {
                for partition in rebalance.partitions.iter().filter(|p| self.cast.shows(p)) {
                    let owns = (BandKind::Owns, vec![lane], partition.to_string());
                    if rebalance.kind == RebalanceKind::Assigned {
                        self.begin(event, owns, String::new());
                        if let Place::Client { client, .. } = event.place {
                            self.owners.insert(self.bands.len() - 1, client);
                        }
                    } else {
                        self.end(event, &owns);
                    }
                }
            }
            (SimEventKind::Cut(links), _) => {
                for cut in self.cuts(links) {
                    self.begin(event, cut, String::new());
                }
            }
            (SimEventKind::Mended(links), _) => {
                for cut in self.cuts(links) {
                    self.end(event, &cut);
                }
            }
            (SimEventKind::Called { operation: Operation::Close, .. }, Some(_)) => {
                self.closed(event);
            }
            (SimEventKind::Healed, _) => self.end_all(event, |kind, _, _| kind == BandKind::Cut),
            _ => {}
        }
    }

    /// The bands of links; both ways are one.
    fn cuts(&self, links: &[(Place, Place)]) -> Vec<(BandKind, Vec<LaneIndex>, String)> {
        let lanes = links.iter().filter_map(|(from, to)| {
            let (from, to) = (self.cast.lanes.find(from)?, self.cast.lanes.find(to)?);
            Some((BandKind::Cut, vec![from.min(to), from.max(to)], String::new()))
        });
        lanes.collect()
    }

    /// A consumer that closes owns nothing any more.
    fn closed(&mut self, event: &SimEvent) {
        let Place::Client { client, .. } = event.place else { return };
        let is_its = |index: &usize| self.owners.get(index) == Some(&client);
        let keys = self.running.iter().filter(|(_, index)| is_its(index));
        for key in keys.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.end(event, &key);
        }
    }

    fn changed(&mut self, event: &SimEvent, change: Change, lane: LaneIndex) {
        let down = (BandKind::Down, vec![lane], String::new());
        let paused = (BandKind::Paused, vec![lane], String::new());
        match change {
            // A client ends when it is closed; its process goes on.
            _ if matches!(event.place, Place::Client { .. }) => {}
            Change::Started => self.end(event, &down),
            Change::Crashed | Change::PowerLost | Change::Stopped => {
                self.end_all(event, |_, lanes, _| lanes == [lane]);
                self.begin(event, down, String::new());
            }
            Change::Paused | Change::Stalled => self.begin(event, paused, String::new()),
            Change::Resumed => self.end(event, &paused),
            Change::ShuttingDown => {}
        }
    }

    fn begin(&mut self, event: &SimEvent, key: (BandKind, Vec<LaneIndex>, String), detail: String) {
        if self.running.contains_key(&key) {
            return;
        }
        self.running.insert(key.clone(), self.bands.len());
        let (kind, lanes, subject) = key;
        let (id, from) = (Some(event.seq), event.at.as_nanos());
        self.bands.push(Band { id, kind, lanes, subject, detail, from, to: None });
    }

    fn end(&mut self, event: &SimEvent, key: &(BandKind, Vec<LaneIndex>, String)) {
        if let Some(index) = self.running.remove(key) {
            self.bands[index].to = Some(event.at.as_nanos());
        }
    }

    fn end_all(&mut self, event: &SimEvent, is_it: impl Fn(BandKind, &[LaneIndex], &str) -> bool) {
        let keys: Vec<_> = self
            .running
            .keys()
            .filter(|(kind, lanes, subject)| is_it(*kind, lanes, subject))
            .cloned()
            .collect();
        for key in keys {
            self.end(event, &key);
        }
    }
}
