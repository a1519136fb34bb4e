//! Probe: asks a broker over its socket who is in the cluster.
//!
//! One Metadata request of version 1 without topics, by hand: the launcher must not need a Kafka
//! client. A listening port alone proves little, since a broker listens before the controller has
//! let it in. Format: <https://kafka.apache.org/protocol#The_Messages_Metadata>.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const CORRELATION_ID: i32 = 0x0062_7573;
const METADATA: i16 = 3;
/// No answer of a small cluster is longer; a longer one is not Kafka's.
const ANSWER_MAX: usize = 1 << 20;

/// Returns the ids of the brokers that the one at `port` knows to be alive.
pub(super) fn live_brokers(port: u16, timeout: Duration) -> io::Result<Vec<i32>> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(&request())?;

    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
    if size > ANSWER_MAX {
        return Err(malformed());
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer)?;
    brokers(&answer).ok_or_else(malformed)
}

fn request() -> Vec<u8> {
    let client_id = b"bus-kafka-probe";
    let mut body = Vec::new();
    body.extend(METADATA.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    body.extend(CORRELATION_ID.to_be_bytes());
    body.extend([0, u8::try_from(client_id.len()).unwrap_or(u8::MAX)]);
    body.extend(client_id);
    // No topics.
    body.extend(0_i32.to_be_bytes());
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&size.to_be_bytes()[..], &body].concat()
}

/// Reads the list of brokers, with which the answer begins.
fn brokers(answer: &[u8]) -> Option<Vec<i32>> {
    let mut rest = answer;
    if int32(&mut rest)? != CORRELATION_ID {
        return None;
    }
    let count = int32(&mut rest)?;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(int32(&mut rest)?);
        let host = int16(&mut rest)?;
        skip(&mut rest, host)?;
        let _port = int32(&mut rest)?;
        // The rack may be null, which is a length of -1.
        let rack = int16(&mut rest)?;
        skip(&mut rest, rack.max(0))?;
    }
    Some(ids)
}

fn int32(rest: &mut &[u8]) -> Option<i32> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(i32::from_be_bytes(*first))
}

fn int16(rest: &mut &[u8]) -> Option<i16> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(i16::from_be_bytes(*first))
}

fn skip(rest: &mut &[u8], count: i16) -> Option<()> {
    *rest = rest.get(usize::try_from(count).ok()?..)?;
    Some(())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not Kafka's")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ids: &[u8]) -> Vec<u8> {
        let mut bytes = CORRELATION_ID.to_be_bytes().to_vec();
        bytes.extend([0, 0, 0, u8::try_from(ids.len()).unwrap()]);
        for id in ids {
            bytes.extend([0, 0, 0, *id]);
            bytes.extend([0, 9]);
            bytes.extend(b"127.0.0.1");
            bytes.extend(9092_i32.to_be_bytes());
            bytes.extend((-1_i16).to_be_bytes());
        }
        bytes.extend(1_i32.to_be_bytes());
        bytes
    }

    #[test]
    fn the_request_says_its_own_size() {
        let request = request();
        let (size, body) = request.split_first_chunk().unwrap();
        assert_eq!(usize::try_from(i32::from_be_bytes(*size)).unwrap(), body.len());
        assert_eq!(body[..4], [0, 3, 0, 1]);
    }

    #[test]
    fn brokers_are_read_from_an_answer() {
        assert_eq!(brokers(&answer(&[])), Some(vec![]));
        assert_eq!(brokers(&answer(&[1, 3])), Some(vec![1, 3]));
    }

    #[test]
    fn a_cut_or_foreign_answer_is_no_list() {
        let whole = answer(&[1, 2]);
        for length in 0..whole.len() - 4 {
            assert_eq!(brokers(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(brokers(b"HTTP/1.1 400 Bad Request"), None);
    }
}
