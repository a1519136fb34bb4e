//! Tests of the store: transactions, and commits that fail or are late.

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    id: String,
    amount: u32,
}

impl Row for Account {
    const TABLE: &'static str = "accounts";

    fn key(&self) -> String {
        self.id.clone()
    }
}

fn account(id: &str, amount: u32) -> Account {
    Account { id: id.to_owned(), amount }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_committed_has_not_happened() {
    let store = Store::default();
    let mut transaction = store.begin();
    transaction.insert(&account("a", 1)).unwrap();
    assert_eq!(transaction.find("a").unwrap(), Some(account("a", 1)));
    drop(transaction);
    assert_eq!(store.all::<Account>().unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn keys_are_unique() {
    let store = Store::default();
    for expected in [Ok(()), Err(())] {
        let mut transaction = store.begin();
        transaction.insert(&account("a", 1)).unwrap();
        transaction.insert(&account("b", 1)).unwrap();
        let outcome = transaction.commit().await;
        assert_eq!(outcome.clone().map_err(|_| ()), expected, "{outcome:?}");
    }
    let mut transaction = store.begin();
    transaction.delete::<Account>("a");
    transaction.commit().await.unwrap();
    assert_eq!(store.all::<Account>().unwrap(), [account("b", 1)]);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_change_one_row_one_commits() {
    let store = Store::default();
    let mut transaction = store.begin();
    transaction.insert(&account("a", 1)).unwrap();
    transaction.commit().await.unwrap();
    let add = || {
        let mut transaction = store.begin();
        let found = transaction.find::<Account>("a").unwrap().unwrap();
        transaction.update(&account("a", found.amount + 1)).unwrap();
        transaction
    };
    let (first, second) = (add(), add());
    first.commit().await.unwrap();
    let error = second.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(store.all::<Account>().unwrap(), [account("a", 2)]);
    assert_eq!(bus_core::Error::from(error).recovery(), bus_core::Recovery::Retry);
}

#[tokio::test(start_paused = true)]
async fn numbers_are_taken_before_the_commit() {
    let store = Store::default();
    let (mut first, mut second) = (store.begin(), store.begin());
    assert_eq!(store.decided_before("ids"), 1);
    assert_eq!((first.next_of("ids"), second.next_of("ids")), (1, 2));
    second.insert(&account("b", 2)).unwrap();
    second.commit().await.unwrap();
    assert_eq!(store.decided_before("ids"), 1, "the first is open");
    drop(first);
    assert_eq!(store.decided_before("ids"), 3, "the first is gone, and its number with it");
    let mut third = store.begin();
    assert_eq!(third.next_of("ids"), 3);
    assert_eq!(third.next_of("others"), 1);
}

/// A database with account `a`, of which `fate` decides the next commits.
async fn with_fate(fate: CommitFate) -> (Store, Store) {
    let store = Store::named("bank");
    let mut transaction = store.begin();
    transaction.insert(&account("a", 1)).unwrap();
    transaction.commit().await.unwrap();
    let commits = Commits::new(move |process, database| {
        assert_eq!((process, database), ("teller", "bank"));
        fate
    });
    let used = store.used_by("teller", &commits);
    (store, used)
}

/// Adds one to account `a`.
fn add(store: &Store) -> Transaction {
    let mut transaction = store.begin();
    let found = transaction.find::<Account>("a").unwrap().unwrap();
    transaction.update(&account("a", found.amount + 1)).unwrap();
    transaction
}

#[tokio::test(start_paused = true)]
async fn a_commit_fails_before_or_behind_the_database() {
    for (fate, error, amount) in [
        (CommitFate::Ordinary, None, 2),
        (CommitFate::Refused, Some(StoreError::Refused), 1),
        (CommitFate::Lost, Some(StoreError::OutcomeUnknown), 1),
        (CommitFate::AnswerLost, Some(StoreError::OutcomeUnknown), 2),
        (CommitFate::Late(Duration::from_secs(1)), None, 2),
        (CommitFate::Late(Duration::from_secs(9)), Some(StoreError::OutcomeUnknown), 1),
    ] {
        let (store, used) = with_fate(fate).await;
        assert_eq!(add(&used).commit().await.err(), error, "{fate:?}");
        assert_eq!(store.all::<Account>().unwrap(), [account("a", amount)], "{fate:?}");
    }
    let [refused, unknown] =
        [StoreError::Refused, StoreError::OutcomeUnknown].map(bus_core::Error::from);
    assert!(!refused.is_indeterminate() && unknown.is_indeterminate());
    assert_eq!(refused.recovery(), unknown.recovery());
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_happens_when_its_client_is_gone() {
    let (store, used) = with_fate(CommitFate::Late(Duration::from_secs(9))).await;
    let mut transaction = add(&used);
    assert_eq!(transaction.next_of("ids"), 1);
    let gone = tokio::time::timeout(Duration::from_secs(2), transaction.commit()).await;
    assert!(gone.is_err(), "nobody answers so soon");
    assert_eq!(store.decided_before("ids"), 1, "it is still open");
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(store.all::<Account>().unwrap(), [account("a", 2)]);
    assert_eq!(store.decided_before("ids"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_that_was_overtaken_conflicts() {
    let (store, used) = with_fate(CommitFate::Late(Duration::from_secs(9))).await;
    let late = add(&used).commit().await;
    assert_eq!(late, Err(StoreError::OutcomeUnknown));
    // Whoever looks again before it comes finds nothing, and tries again.
    add(&store).commit().await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(store.all::<Account>().unwrap(), [account("a", 2)]);
}

#[tokio::test(start_paused = true)]
async fn who_crashes_at_a_commit_never_gets_beyond_it() {
    let (store, used) = with_fate(CommitFate::Crashed).await;
    let crash = tokio::time::timeout(Duration::from_secs(60), add(&used).commit()).await;
    assert!(crash.is_err());
    assert_eq!(store.all::<Account>().unwrap(), [account("a", 1)]);
}
