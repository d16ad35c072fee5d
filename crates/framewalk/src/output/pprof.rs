//! pprof: the gzipped protocol buffer of github.com/google/pprof, proto/profile.proto.
//!
//! Field names and numbers are those of that file. Mappings are the files as recorded (their range is
//! made up, as frames are places in files here, not addresses of one process), locations are
//! frames, and a location has a line for each function inlined there, the innermost first.

use super::View;
use super::folded;
use crate::profile::{FrameId, StackId, ThreadId};
use crate::sample::{ObjectId, Place};
use flate2::Compression;
use flate2::write::GzEncoder;
use framewalk_walk::{Origin, Stop};
use indexmap::IndexSet;
use prost::Message;
use std::collections::HashMap;
use std::io::{self, Write};

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
    #[prost(int64, tag = "3")]
    num: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(uint64, tag = "4")]
    file_offset: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// The string table; its first entry has to be the empty string.
struct Strings(IndexSet<String>);

impl Strings {
    fn number(&mut self, text: &str) -> i64 {
        let known = self.0.get_index_of(text);
        known.unwrap_or_else(|| self.0.insert_full(text.to_string()).0) as i64
    }
}

/// How much of the made-up address space each mapping gets: more than any file has bytes.
const MAPPING_SIZE: u64 = 1 << 40;

/// A profile that grows as samples refer to its parts.
struct Builder<'a> {
    view: &'a View<'a>,
    profile: Profile,
    strings: Strings,
    /// Mapping ids by object; the kernel is none.
    mappings: HashMap<Option<ObjectId>, u64>,
    /// Function ids by their number in the symbols and whether the frame is a guess.
    functions: HashMap<(u32, bool), u64>,
    locations: HashMap<FrameId, u64>,
    cuts: HashMap<Stop, u64>,
}

impl Builder<'_> {
    fn mapping(&mut self, object: Option<ObjectId>) -> u64 {
        if let Some(&id) = self.mappings.get(&object) {
            return id;
        }
        let id = self.profile.mapping.len() as u64 + 1;
        let object_here = object.map(|object| self.view.objects.get(object));
        let filename = object_here.map_or("[kernel.kallsyms]".into(), |object| {
            object.path.to_string_lossy()
        });
        let build_id = object_here
            .and_then(|object| object.build_id.as_deref())
            .unwrap_or_default();
        let build_id: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        self.profile.mapping.push(Mapping {
            id,
            memory_start: id * MAPPING_SIZE,
            memory_limit: (id + 1) * MAPPING_SIZE,
            file_offset: 0,
            filename: self.strings.number(&filename),
            build_id: self.strings.number(&build_id),
            // There is nothing left to look up.
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        });
        self.mappings.insert(object, id);
        id
    }

    fn add_function(&mut self, name: &str, source: &str) -> u64 {
        let id = self.profile.function.len() as u64 + 1;
        let name = self.strings.number(name);
        let filename = self.strings.number(source);
        self.profile.function.push(Function {
            id,
            name,
            system_name: name,
            filename,
        });
        id
    }

    fn function(&mut self, number: u32, guess: bool) -> u64 {
        if let Some(&id) = self.functions.get(&(number, guess)) {
            return id;
        }
        let function = self.view.symbols.function(number);
        let mark = if guess { folded::GUESS } else { "" };
        let id = self.add_function(
            &format!("{}{mark}", function.name),
            function.source.as_deref().unwrap_or(""),
        );
        self.functions.insert((number, guess), id);
        id
    }

    fn add_location(&mut self, mapping_id: u64, address: u64, line: Vec<Line>) -> u64 {
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location {
            id,
            mapping_id,
            address,
            line,
        });
        id
    }

    fn location(&mut self, frame: FrameId) -> u64 {
        if let Some(&id) = self.locations.get(&frame) {
            return id;
        }
        let at = self.view.profile.frame(frame).frame;
        let guess = at.origin == Origin::FramePointer;
        let (mapping, address) = match at.place {
            Place::Object(object, offset) => {
                let mapping = self.mapping(Some(object));
                (mapping, mapping * MAPPING_SIZE + offset % MAPPING_SIZE)
            }
            Place::Kernel(address) => (self.mapping(None), address),
            Place::Anonymous(address) | Place::Described { address, .. } => (0, address),
        };
        let view = self.view;
        let functions = view.symbols.numbered(frame).rev();
        let lines = functions.map(|(number, line)| Line {
            function_id: self.function(number, guess),
            line: line.into(),
        });
        let lines = lines.collect();
        let id = self.add_location(mapping, address, lines);
        self.locations.insert(frame, id);
        id
    }

    /// The location that stands for missing callers.
    fn cut(&mut self, stop: Stop) -> Option<u64> {
        let text = folded::cut(stop)?;
        if let Some(&id) = self.cuts.get(&stop) {
            return Some(id);
        }
        let function_id = self.add_function(&text, "");
        let id = self.add_location(
            0,
            0,
            vec![Line {
                function_id,
                line: 0,
            }],
        );
        self.cuts.insert(stop, id);
        Some(id)
    }

    fn sample(&mut self, thread: ThreadId, stack: StackId, count: u64) {
        let frames = self.view.profile.walk(stack);
        let mut location_id: Vec<u64> = frames.map(|frame| self.location(frame)).collect();
        location_id.extend(self.cut(self.view.profile.stop(stack)));
        let thread = self.view.profile.thread(thread);
        let nanoseconds = count.saturating_mul(self.view.period_ns);
        let number = |strings: &mut Strings, key, num: u32| Label {
            key: strings.number(key),
            str: 0,
            num: num.into(),
        };
        let comm = Label {
            key: self.strings.number("thread"),
            str: self.strings.number(&thread.comm),
            num: 0,
        };
        let label = vec![
            comm,
            number(&mut self.strings, "pid", thread.pid),
            number(&mut self.strings, "tid", thread.tid),
        ];
        self.profile.sample.push(Sample {
            location_id,
            value: vec![signed(count), signed(nanoseconds)],
            label,
        });
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn build(view: &View) -> Profile {
    let mut builder = Builder {
        view,
        profile: Profile::default(),
        strings: Strings(IndexSet::from([String::new()])),
        mappings: HashMap::new(),
        functions: HashMap::new(),
        locations: HashMap::new(),
        cuts: HashMap::new(),
    };
    for ((thread, stack), count) in view.profile.counted() {
        builder.sample(thread, stack, count);
    }
    let Builder {
        mut profile,
        mut strings,
        ..
    } = builder;
    let mut value_type = |r#type, unit| ValueType {
        r#type: strings.number(r#type),
        unit: strings.number(unit),
    };
    profile.sample_type = vec![
        value_type("samples", "count"),
        value_type("cpu", "nanoseconds"),
    ];
    profile.period_type = Some(value_type("cpu", "nanoseconds"));
    profile.period = signed(view.period_ns);
    profile.time_nanos = signed(view.began_wall_ns);
    profile.duration_nanos = signed(view.duration_ns);
    profile.default_sample_type = strings.number("cpu");
    profile.comment = vec![strings.number(view.title), strings.number(view.subtitle)];
    profile.string_table = strings.0.into_iter().collect();
    profile
}

/// Writes the file.
pub fn write(view: &View, writer: &mut dyn Write) -> io::Result<()> {
    let mut writer = GzEncoder::new(writer, Compression::default());
    writer.write_all(&build(view).encode_to_vec())?;
    writer.finish()?;
    Ok(())
}
