//! The lease in a real bucket: one has it, and whoever lost it knows.

use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Fence;
use houseboat::replication::Bucket;
use houseboat::replication::Candidate;
use houseboat::replication::Error;
use houseboat::replication::Holder;
use houseboat::replication::Outage;
use houseboat::replication::Settings;
use houseboat::replication::look;
use houseboat::replication::release;

use crate::support::replica::replication;
use crate::support::s3::S3;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const RECORD: &str = "lease.json";

const SOON: Duration = Duration::from_secs(20);

fn candidate(settings: &Settings, site: &str) -> Candidate {
    let bucket = Bucket::replica(settings).unwrap();
    let own = Holder::new(site, Vec::new(), settings.lease(), Clock::system().now());
    Candidate::new(bucket, settings, own)
}

#[tokio::test]
async fn of_two_that_see_it_free_one_takes_it() {
    let s3 = S3::start().await;
    let settings = replication(&s3);
    let (mut one, mut other) = (candidate(&settings, "site"), candidate(&settings, "site"));
    let (seen, seen_too) = (one.look().await.unwrap(), other.look().await.unwrap());
    let (fence, closed) = (Fence::closed(), Fence::closed());
    let lease = one.take(&seen, &fence).await.unwrap().unwrap();
    assert!(other.take(&seen_too, &closed).await.unwrap().is_none());
    assert!(fence.is_open());
    assert!(!closed.is_open());
    assert_eq!(lease.record().await.epoch, 1);
    // It changes with each renewal, so that who watches sees that the holder lives.
    let before = lease.record().await.beat;
    lease.renew().await.unwrap();
    assert!(lease.record().await.beat > before);
}

#[tokio::test]
async fn who_has_lost_it_may_write_no_more() {
    let s3 = S3::start().await;
    let settings = Settings {
        lease_ms: 3_000,
        ..replication(&s3)
    };
    let bucket = Bucket::replica(&settings).unwrap();
    let (mut one, mut other) = (candidate(&settings, "site"), candidate(&settings, "site"));
    let fence = Fence::closed();
    let seen = one.look().await.unwrap();
    let lease = one.take(&seen, &fence).await.unwrap().unwrap();
    let record = look(&bucket).await.unwrap().unwrap();
    release(&bucket, &record).await.unwrap();
    let seen = other.look().await.unwrap();
    let taken = other.take(&seen, &Fence::closed()).await.unwrap().unwrap();
    assert_eq!(taken.record().await.epoch, 2);
    let kept = tokio::time::timeout(SOON, lease.keep()).await.unwrap();
    let Err(error) = kept;
    assert!(matches!(error, Error::Lost(_)), "{error}");
    assert!(!fence.is_open());
}

#[tokio::test]
async fn the_replica_of_another_site_is_left_alone() {
    let s3 = S3::start().await;
    let settings = replication(&s3);
    let mut one = candidate(&settings, "shop");
    let seen = one.look().await.unwrap();
    one.take(&seen, &Fence::closed()).await.unwrap().unwrap();
    let error = candidate(&settings, "blog").look().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the bucket refuses: the replica there is that of the site \"shop\", and this is \"blog\": \
         give this one a replication.path of its own"
    );
    candidate(&settings, "shop").look().await.unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_somebody_elses() {
    let s3 = S3::start().await;
    let bucket = Bucket::replica(&replication(&s3)).unwrap();
    let newer = r#"{"format":2,"who":"knows"}"#;
    for (text, reason) in [(newer, "format 2"), ("{", "lease.json")] {
        let settings = Settings {
            lease_ms: 3_000,
            ..replication(&s3)
        };
        let fence = Fence::closed();
        let mut one = candidate(&settings, "site");
        let seen = one.look().await.unwrap();
        let lease = one.take(&seen, &fence).await.unwrap().unwrap();
        bucket.put(RECORD, text).await.unwrap();
        let Err(error) = tokio::time::timeout(SOON, lease.keep()).await.unwrap();
        assert!(matches!(error, Error::Lost(_)), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!fence.is_open());
        // It is not ours to write over, whatever it is.
        let (there, _) = bucket.get(RECORD).await.unwrap().unwrap();
        assert_eq!(there, text);
        bucket.delete(RECORD).await.unwrap();
    }
}

#[tokio::test]
async fn while_the_bucket_hangs_the_settings_say_who_may_write() {
    if !slow("while_the_bucket_hangs_the_settings_say_who_may_write") {
        return;
    }
    let lease_ms = 6_000;
    for outage in [Outage::Serve, Outage::Stop] {
        let s3 = S3::start().await;
        let settings = Settings {
            lease_ms,
            outage,
            ..replication(&s3)
        };
        let fence = Fence::closed();
        let mut one = candidate(&settings, "site");
        let seen = one.look().await.unwrap();
        let lease = one.take(&seen, &fence).await.unwrap().unwrap();
        s3.signal("STOP");
        let kept = lease.clone();
        let keeping = tokio::spawn(async move { kept.keep().await });
        tokio::time::sleep(Duration::from_millis(lease_ms) * 3 / 2).await;
        // What has closed while the bucket cannot be asked stays closed, so this tells of all the time before.
        assert_eq!(fence.is_open(), outage == Outage::Serve);
        let trouble = lease.trouble().unwrap();
        assert!(trouble.contains("no answer"), "{trouble}");
        s3.signal("CONT");
        wait_for("renewal", SOON, async || {
            lease.trouble().is_none().then_some(())
        })
        .await;
        assert!(fence.is_open());
        keeping.abort();
    }
}
