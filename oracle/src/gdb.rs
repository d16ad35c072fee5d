//! The remote protocol of gdb, as far as stepping needs it: what QEMU's user mode emulators speak with `-g`.
//!
//! GDB manual, appendix E. One packet is `$data#checksum`, answered by `+`; everything is hexadecimal.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// The longest packet that is taken, bytes. QEMU's are 4 KiB.
const MAX_PACKET: u64 = 1 << 14;
/// Bytes of memory asked for at once.
pub const MAX_READ: usize = 1 << 10;

/// How a program under the stub stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It can go on; the signal's number, of gdb's numbering (5 = a step is done).
    Signal(u8),
    /// It has ended, with this status.
    Exited(u8),
}

/// A connection to a stub.
#[derive(Debug)]
pub struct Stub {
    from: BufReader<TcpStream>,
    to: TcpStream,
    packet: Vec<u8>,
    /// The last answer is not acknowledged yet: that goes with the next packet, which saves a write and a wakeup.
    owes: bool,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("remote protocol: {what}"),
    )
}

fn checksum(data: &[u8]) -> u8 {
    data.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Bytes of pairs of hexadecimal digits.
pub fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_chunks::<2>();
    let byte = |&[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    pairs
        .iter()
        .map(byte)
        .collect::<Option<_>>()
        .filter(|_| rest.is_empty())
}

impl Stub {
    /// Takes a connection that has been made.
    pub fn new(stream: TcpStream) -> io::Result<Stub> {
        stream.set_nodelay(true)?;
        Ok(Stub {
            from: BufReader::new(stream.try_clone()?),
            to: stream,
            packet: Vec::new(),
            owes: false,
        })
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// Sends a packet and returns what it is answered with.
    fn ask(&mut self, data: &str) -> io::Result<&[u8]> {
        let sum = checksum(data.as_bytes());
        let owed = if self.owes { "+" } else { "" };
        let packet = format!("{owed}${data}#{sum:02x}");
        self.to.write_all(packet.as_bytes())?;
        if self.byte()? != b'+' {
            return Err(malformed("a packet was refused"));
        }
        if self.byte()? != b'$' {
            return Err(malformed("no packet"));
        }
        self.packet.clear();
        let mut limited = (&mut self.from).take(MAX_PACKET);
        limited.read_until(b'#', &mut self.packet)?;
        if self.packet.pop() != Some(b'#') {
            return Err(malformed("cut, or too long"));
        }
        let sum = [self.byte()?, self.byte()?];
        if from_hex(&sum) != Some(vec![checksum(&self.packet)]) {
            return Err(malformed("wrong checksum"));
        }
        self.owes = true;
        Ok(&self.packet)
    }

    /// Executes one instruction.
    pub fn step(&mut self) -> io::Result<Stopped> {
        let answer = self.ask("s")?;
        let number = answer.get(1..3).and_then(from_hex);
        match (answer.first(), number.as_deref()) {
            (Some(b'S' | b'T'), Some(&[signal])) => Ok(Stopped::Signal(signal)),
            (Some(b'W'), Some(&[status])) => Ok(Stopped::Exited(status)),
            _ => Err(malformed("not a stop")),
        }
    }

    /// The bytes of the general registers, in the stub's order.
    pub fn registers(&mut self) -> io::Result<Vec<u8>> {
        from_hex(self.ask("g")?).ok_or_else(|| malformed("not registers"))
    }

    /// Says that registers outside of the general ones are known by a description: QEMU does not answer for them before.
    pub fn describe(&mut self) -> io::Result<()> {
        match self.ask("qXfer:features:read:target.xml:0,ff0")?.first() {
            Some(b'l' | b'm') => Ok(()),
            _ => Err(malformed("no description")),
        }
    }

    /// The bytes of one register, by the stub's number.
    pub fn register(&mut self, number: u32) -> io::Result<Vec<u8>> {
        from_hex(self.ask(&format!("p{number:x}"))?).ok_or_else(|| malformed("not a register"))
    }

    /// Memory, at most [`MAX_READ`] bytes; none where it cannot be read.
    pub fn memory(&mut self, address: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let length = length.min(MAX_READ);
        let answer = self.ask(&format!("m{address:x},{length:x}"))?;
        if answer.first() == Some(&b'E') {
            return Ok(None);
        }
        let bytes = from_hex(answer).ok_or_else(|| malformed("not memory"))?;
        Ok(Some(bytes).filter(|bytes| bytes.len() == length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// What a stub that answers this makes of a step.
    fn step(answer: &'static [u8]) -> io::Result<Stopped> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stub = thread::spawn(move || {
            let (mut from, _) = listener.accept().unwrap();
            let mut asked = [0; 5];
            from.read_exact(&mut asked).unwrap();
            // An answer may be too long for whoever reads it.
            let _ = from.write_all(answer);
            asked
        });
        let stopped = Stub::new(to).unwrap().step();
        assert_eq!(&stub.join().unwrap(), b"$s#73");
        stopped
    }

    #[test]
    fn stops_are_read_and_nonsense_is_refused() {
        assert_eq!(step(b"+$T05thread:01;#07").unwrap(), Stopped::Signal(5));
        assert_eq!(step(b"+$W00#b7").unwrap(), Stopped::Exited(0));
        for answer in [
            &b"-"[..],
            b"+",
            b"++",
            b"+$",
            b"+$W00#b8",
            b"+$W00#zz",
            b"+$W0#87",
            b"+$OK#9a",
            b"+$#00",
            &[b"+$".as_slice(), &[b'0'; MAX_PACKET as usize + 1]]
                .concat()
                .leak()[..],
        ] {
            assert!(step(answer).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(from_hex(b"00fF"), Some(vec![0, 255]));
        assert_eq!(from_hex(b"0"), None);
        assert_eq!(from_hex(b"0g"), None);
    }
}
