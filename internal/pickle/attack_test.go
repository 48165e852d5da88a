package pickle

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/hostile"
)

// dangerous are functions that pickles were seen to call to run code, to read or write files, to reach the network or
// to unpack another pickle; among them every module and name that the scanner picklescan lists.
var dangerous = strings.Fields(`
	os.system os.popen os.execv os.spawnl os.remove os.unlink os.rename os.mkdir os.putenv os.environ os.open os.startfile
	posix.system posix.execve posix.fork posix.unlink nt.system nt.unlink
	subprocess.Popen subprocess.run subprocess.call subprocess.check_call subprocess.check_output subprocess.getoutput commands.getoutput
	builtins.eval builtins.exec builtins.compile builtins.open builtins.getattr builtins.setattr builtins.__import__
	builtins.apply builtins.breakpoint builtins.input builtins.globals builtins.vars builtins.memoryview builtins.object
	__builtin__.eval __builtin__.exec __builtin__.execfile __builtin__.compile __builtin__.open __builtin__.file
	__builtin__.getattr __builtin__.__import__ __builtin__.apply __builtin__.breakpoint __builtin__.list __builtin__.set
	runpy._run_code runpy.run_path runpy.run_module pty.spawn platform.popen code.interact code.InteractiveInterpreter.runcode
	bdb.Bdb.run bdb.Bdb.runeval pdb.run pdb.Pdb.do_debug timeit.timeit timeit.main cProfile.run cProfile.runctx
	profile.Profile.run profile.Profile.runctx trace.Trace.run trace.Trace.runctx doctest.debug_script
	idlelib.autocomplete.AutoComplete.get_entity idlelib.autocomplete.AutoComplete.fetch_completions idlelib.calltip.Calltip.fetch_tip
	idlelib.calltip.get_entity idlelib.debugobj.ObjectTreeItem.SetText idlelib.pyshell.ModifiedInterpreter.runcode
	idlelib.pyshell.ModifiedInterpreter.runcommand idlelib.run.Executive.runcode
	lib2to3.pgen2.grammar.Grammar.loads lib2to3.pgen2.pgen.ParserGenerator.make_label ensurepip._run_pip pip.main pip._internal.main venv.create
	pydoc.locate pydoc.pipepager distutils.file_util.write_file shutil.rmtree shutil.copyfile shutil.move
	socket.socket socket.create_connection ssl.get_server_certificate urllib.request.urlopen urllib.request.urlretrieve
	http.client.HTTPSConnection httplib.HTTPSConnection requests.api.get aiohttp.client.ClientSession asyncio.run asyncio.unix_events._UnixSubprocessTransport._start
	webbrowser.open smtplib.SMTP ftplib.FTP telnetlib.Telnet xmlrpc.client.ServerProxy
	sys.exit sys.modules sys.settrace sys.path.append importlib.import_module importlib.reload imp.load_source
	ctypes.CDLL ctypes.windll ctypes.util.find_library _ctypes.dlopen multiprocessing.Process multiprocessing.util.spawnv_passfds
	threading.Thread signal.signal gc.get_objects inspect.stack types.FunctionType types.CodeType marshal.loads
	functools.partial functools.reduce operator.attrgetter operator.itemgetter operator.methodcaller operator.call _operator.attrgetter
	pickle.loads pickle.load pickle.Unpickler _pickle.loads cPickle.loads dill.loads cloudpickle.loads shelve.open joblib.load pandas.read_pickle
	numpy.load numpy.core.multiarray._reconstruct numpy.core.multiarray.scalar numpy._core.multiarray._reconstruct numpy.dtype numpy.ndarray
	numpy.ctypeslib.load_library numpy.f2py.crackfortran.getlincoef numpy.f2py.crackfortran._eval_length numpy.testing._private.utils.runstring
	torch.load torch.hub.load torch.serialization.load torch.jit.load torch.ops.load_library torch.storage._load_from_bytes
	torch._dynamo.guards.GuardBuilder.get torch._inductor.codecache.compile_file torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression
	torch.jit.unsupported_tensor_ops.execWrapper torch.utils._config_module.ConfigModule.load_config torch.utils.bottleneck.__main__.run_cprofile
	torch.utils.bottleneck.__main__.run_autograd_prof torch.utils.collect_env.run torch.utils.data.datapipes.utils.decoder.basichandlers
	torch.nn.Linear torch.device torch._utils._rebuild_device_tensor_from_numpy torch._utils._rebuild_qtensor torch._utils._rebuild_wrapper_subclass
	transformers.AutoModel.from_pretrained tensorflow.keras.models.load_model keras.models.load_model
	copyreg._reconstructor copyreg.__newobj__ collections.UserDict collections.OrderedDict.__reduce__ zipfile.ZipFile tempfile.mktemp logging.config.listen
	linecache.getlines glob.glob pathlib.Path io.open io.FileIO _io.open codecs.open fileinput.input sqlite3.connect
	yaml.unsafe_load ast.literal_eval string.Formatter.format decimal.Decimal uuid._load_system_functions antigravity.geohash`)

// forms are the ways in which a pickle names a function: what comes before and includes the name, and what is done with it.
var forms = []struct {
	name   string
	naming func(module, name string) string
	use    string
}{
	{"REDUCE", global, "(S'x'\ntR."},
	{"NEWOBJ", global, ")\x81."},
	{"NEWOBJ_EX", global, ")}\x92."},
	{"BUILD", global, "}b."},
	{"BINPERSID", global, "Q."},
	{"OBJ", func(m, n string) string { return "(" + global(m, n) }, "S'x'\no."},
	{"INST", func(m, n string) string { return "(S'x'\ni" + m + "\n" + n + "\n" }, "."},
	{"STACK_GLOBAL", func(m, n string) string { return "\x80\x04" + short(m) + short(n) + "\x93" }, ")R."},
	{"STACK_GLOBAL of memos", func(m, n string) string {
		return "\x80\x04" + short(n) + "\x940" + short(m) + "\x94h\x00\x93"
	}, ")R."},
	{"STACK_GLOBAL of old strings", func(m, n string) string { return "U" + short(m)[1:] + "V" + n + "\n\x93" }, ")R."},
	{"in a checkpoint", func(m, n string) string { return "(dS'lm_head.weight'\n" + global(m, n) }, "(S'x'\ntRs."},
	{"thrown away", global, "(S'x'\ntR0(d."},
	{"twice on one line", func(m, n string) string { return "NN00" + global(m, n) }, "."},
}

func global(module, name string) string { return "c" + module + "\n" + name + "\n" }

// short is the instruction for a string of up to 255 bytes.
func short(s string) string { return "\x8c" + string([]byte{byte(len(s))}) + s }

// The five pickles of the old format.
const (
	oldMagic   = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
	oldVersion = "\x80\x02M\xe9\x03."
	oldSystem  = "\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
	oldKeys    = "]."
)

func TestDangerousNames(t *testing.T) {
	for _, full := range dangerous {
		dot := strings.LastIndexByte(full, '.')
		module, name := full[:dot], full[dot+1:]
		for _, f := range forms {
			named := f.naming(module, name)
			refused := fmt.Sprintf("before byte %d: refused: %s", len(named), full)
			if _, err := Parse(pack(t, named+f.use, nil), "x.bin"); err == nil || err.Error() != "x.bin: x/data.pkl: "+refused {
				t.Errorf("%s by %s in a zip file: %v\nwant %s", full, f.name, err, refused)
			}
			old := []struct{ what, before, after string }{
				{"system", oldMagic + oldVersion, "(d." + oldKeys}, {"object", oldMagic + oldVersion + oldSystem, oldKeys},
				{"list of storages", oldMagic + oldVersion + oldSystem + "(d.", ""},
			}
			for _, o := range old {
				want := fmt.Sprintf("x.bin: %s at byte %d: %s", o.what, len(o.before), refused)
				if _, err := Parse([]byte(o.before+named+f.use+o.after), "x.bin"); err == nil || err.Error() != want {
					t.Errorf("%s by %s in the old format: %v\nwant %s", full, f.name, err, want)
				}
			}
			if _, err := Parse([]byte(named+f.use), "x.bin"); err == nil || !strings.Contains(err.Error(), refused) {
				t.Errorf("%s by %s alone: %v", full, f.name, err)
			}
		}
	}
}

// A pickle in a record that nobody asks for is not run.
func TestOtherRecords(t *testing.T) {
	evil := global("os", "system") + "(S'x'\ntR."
	good := program("FloatStorage\nS'0'\nS'cpu'\nI4\n", "I0\n", "I4\n", "I1\n")
	for _, record := range []string{"constants.pkl", "version", ".data/serialization_id", "code/data.pkl", "data/1", "data/data.pkl"} {
		f, err := Parse(pack(t, good, map[string]string{"data/0": strings.Repeat("\x00", 16), record: evil}), "x")
		if err != nil || len(f.Names()) != 1 {
			t.Errorf("%s: %v", record, err)
		}
	}
	// In place of what is read it is data, or no answer.
	for record, want := range map[string]string{
		"byteorder": `x: byte order "cos\nsystem\n(S'x'\ntR.", only little is supported`,
		"data/0":    `x: x/data.pkl: before byte 90: record "data/0" has 20 bytes, want 32 for 8 elements of F32`,
	} {
		_, err := Parse(pack(t, program("FloatStorage\nS'0'\nS'cpu'\nI8\n", "I0\n", "I8\n", "I1\n"), map[string]string{record: evil}), "x")
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", record, err, want)
		}
	}
}

func TestLyingPickles(t *testing.T) {
	long := strings.Repeat("1", 4000)
	for name, c := range map[string]struct{ program, want string }{
		"STOP is missing":               {"\x80\x02N", `x/data.pkl: the pickle ends at byte 3 without a STOP`},
		"nothing":                       {"", `x/data.pkl: the pickle ends at byte 0 without a STOP`},
		"protocol 6":                    {"\x80\x06N.", `x/data.pkl: before byte 2: unsupported pickle protocol: 6`},
		"an instruction of the future":  {"\xff.", `x/data.pkl: byte 0: refused: unknown instruction 0xff`},
		"EXT1":                          {"\x80\x02\x82\x01.", `x/data.pkl: byte 2: refused: instruction EXT1`},
		"EXT2":                          {"\x80\x02\x83\x01\x00.", `x/data.pkl: byte 2: refused: instruction EXT2`},
		"EXT4":                          {"\x80\x02\x84\x01\x00\x00\x00.", `x/data.pkl: byte 2: refused: instruction EXT4`},
		"PERSID":                        {"Pos.system\n.", `x/data.pkl: byte 0: refused: instruction PERSID`},
		"NEXT_BUFFER":                   {"\x97.", `x/data.pkl: byte 0: refused: instruction NEXT_BUFFER`},
		"READONLY_BUFFER":               {"N\x98.", `x/data.pkl: byte 1: refused: instruction READONLY_BUFFER`},
		"BINPERSID of a name":           {"S'os.system'\nQ.", `x/data.pkl: before byte 14: a persistent id that is not a storage`},
		"LONG1 behind the end":          {"\x8a\x20\x01.", `x/data.pkl: byte 0: instruction 0x8a needs 33 bytes, there are 3`},
		"LONG1 of 65 bytes":             {"\x8a\x41" + strings.Repeat("\x01", 65) + ".", `x/data.pkl: byte 0: instruction 0x8a with 65 bytes, at most 64 are plausible`},
		"LONG4 negative":                {"\x8b\xff\xff\xff\xff.", `x/data.pkl: byte 0: instruction 0x8b with 4294967295 bytes, at most 64 are plausible`},
		"LONG4 behind the end":          {"\x8b\x08\x00\x00\x00\x01.", `x/data.pkl: byte 0: instruction 0x8b needs 12 bytes, there are 6`},
		"LONG of 4000 digits as a root": {"L" + long + "L\n.", `a large number was saved, want a dictionary of tensors`},
		"INT of 4000 digits":            {"I" + long + "\n.", `x/data.pkl: before byte 4002: strconv.Atoi: parsing "` + long[:177] + `...`},
		"INT of letters":                {"I\x1b[2J\n.", `x/data.pkl: before byte 6: strconv.Atoi: parsing "\x1b[2J": invalid syntax`},
		"FLOAT of 4000 digits":          {"F" + long + "\n.", `x/data.pkl: before byte 4002: strconv.ParseFloat: parsing "` + long[:171] + `...`},
		"a line without an end":         {"I" + long + long + "\n.", `x/data.pkl: byte 0: no line feed within 4096 bytes`},
		"BINUNICODE of 4 GiB":           {"X\xff\xff\xff\xff.", `x/data.pkl: byte 0: instruction 0x58 with 4294967295 bytes, at most 16384 are plausible`},
		"BINUNICODE behind the end":     {"X\x10\x00\x00\x00abc.", `x/data.pkl: byte 0: instruction 0x58 needs 20 bytes, there are 8`},
		"BINSTRING negative":            {"T\x00\x00\x00\x80.", `x/data.pkl: byte 0: instruction 0x54 with 2147483648 bytes, at most 16384 are plausible`},
		"BINUNICODE8 of 2^63":           {"\x8d\x00\x00\x00\x00\x00\x00\x00\x80.", `x/data.pkl: byte 0: instruction 0x8d with 9223372036854775808 bytes, at most 16384 are plausible`},
		"BINBYTES8 of 2^62":             {"\x8e\x00\x00\x00\x00\x00\x00\x00\x40.", `x/data.pkl: byte 0: instruction 0x8e with 4611686018427387904 bytes, at most 16384 are plausible`},
		"BYTEARRAY8 of 2^40":            {"\x96\x00\x00\x00\x00\x00\x01\x00\x00.", `x/data.pkl: byte 0: instruction 0x96 with 1099511627776 bytes, at most 16384 are plausible`},
		"SHORT_BINUNICODE":              {"\x8c\xffabc.", `x/data.pkl: byte 0: instruction 0x8c needs 256 bytes, there are 5`},
		"FRAME of 2^64-1":               {"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", `x/data.pkl: byte 0: instruction 0x95 with 18446744073709551615 bytes, at most 10 are plausible`},
		"FRAME longer than the pickle":  {"\x95\x03\x00\x00\x00\x00\x00\x00\x00N.", `x/data.pkl: byte 0: a frame of 3 bytes, there are 2`},
		"FRAME inside an instruction":   {"\x95\x02\x00\x00\x00\x00\x00\x00\x00X\x01\x00\x00\x00a.", `x/data.pkl: before byte 11: pickle exhausted before end of frame`},
		"FRAME in a FRAME":              {"\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x95\x01\x00\x00\x00\x00\x00\x00\x00N.", `x/data.pkl: before byte 20: beginning of a new frame before end of current frame`},
		"FRAME without its length":      {"\x95\x01\x00.", `x/data.pkl: byte 0: instruction 0x95 needs 8 bytes, there are 3`},
		"REDUCE of nothing":             {"R.", `x/data.pkl: before byte 1: the stack is empty`},
		"REDUCE of a string":            {"S'os.system'\n)R.", `x/data.pkl: before byte 15: REDUCE requires a Callable object: "os.system"`},
		"REDUCE of a long string":       {"\x8e\x00\x10\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x1b", 4096) + ")R.", `x/data.pkl: before byte 4107: REDUCE requires a Callable object: []byte{` + strings.Repeat("0x1b, ", 26) + `0x...`},
		"REDUCE of a storage":           {"(S'storage'\nctorch\nByteStorage\nS'0'\nS'cpu'\nI64\ntQ)R.", `x/data.pkl: before byte 51: REDUCE requires a Callable object: storage`},
		"REDUCE without a tuple":        {"ctorch._utils\n_rebuild_tensor_v2\n]R.", `x/data.pkl: before byte 35: REDUCE args must be *Tuple`},
		"BUILD of a storage type":       {"ctorch\nFloatStorage\n}S'a'\nNsb.", `x/data.pkl: before byte 29: BUILD requires a PyDictSettable instance: 0x1`},
		"BUILD with a number":           {"ccollections\nOrderedDict\n)R}I1\nNsb.", `x/data.pkl: before byte 34: OrderedDict.PyDictSet() requires string key: 1`},
		"NEWOBJ of a storage type":      {"ctorch\nFloatStorage\n)\x81.", `x/data.pkl: before byte 22: NEWOBJ requires a PyNewable object: 0x1`},
		"OBJ of nothing":                {"(o.", `x/data.pkl: before byte 2: OBJ class missing`},
		"OBJ without a mark":            {"o.", `x/data.pkl: before byte 1: the meta stack is empty`},
		"STACK_GLOBAL of numbers":       {"I1\nI2\n\x93.", `x/data.pkl: before byte 7: STACK_GLOBAL requires str name: 2`},
		"STACK_GLOBAL of one string":    {"S'os'\n\x93.", `x/data.pkl: before byte 7: the stack is empty`},
		"GLOBAL without a name":         {"cos\n.", `x/data.pkl: byte 0: no line feed within 1 bytes`},
		"GLOBAL of control characters":  {"c\x1b]0;\x07\n\xff\xfe\n.", `x/data.pkl: before byte 10: refused: \x1b]0;\a.\xff\xfe`},
		"GLOBAL with a long name":       {"c" + strings.Repeat("m", 3000) + "\n" + strings.Repeat("n", 3000) + "\n.", `x/data.pkl: before byte 6003: refused: ` + strings.Repeat("m", 80) + `...`},
		"an array":                      {"carray\n_array_reconstructor\n(N.", `x/data.pkl: byte 7: refused: array._array_reconstructor`},
		"an array by strings":           {short("array") + short("_array_reconstructor") + "\x93.", `x/data.pkl: byte 9: refused: array._array_reconstructor`},
		"an object":                     {"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.", `x/data.pkl: before byte 69: ObjectClass.PyNew called with no arguments`},
		"GET of nothing":                {"h\x07.", `a None was saved, want a dictionary of tensors`},
		"GET of a letter":               {"gx\n.", `x/data.pkl: before byte 3: strconv.Atoi: parsing "x": invalid syntax`},
		"PUT at -1":                     {"Np-1\n.", `x/data.pkl: before byte 5: negative PUT argument`},
		"PUT far away":                  {"(dr\xff\xff\xff\xffI5\ns.", `x/data.pkl: before byte 11: the stack is empty`},
		"PUT of 2^64":                   {"Np18446744073709551616\n.", `x/data.pkl: before byte 23: strconv.Atoi: parsing "18446744073709551616": value out of range`},
		"PUT of nothing":                {"q\x00.", `x/data.pkl: before byte 2: the stack is empty`},
		"POP_MARK without a mark":       {"1.", `x/data.pkl: before byte 1: the meta stack is empty`},
		"APPEND to a number":            {"I1\nNa.", `x/data.pkl: before byte 5: APPEND requires ListAppender`},
		"APPENDS without a mark":        {"]Ne.", `x/data.pkl: before byte 3: the meta stack is empty`},
		"SETITEM of a list":             {"]NNs.", `x/data.pkl: before byte 4: SETITEM requires DictSetter`},
		"SETITEMS, an odd number":       {"}(NNNu.", `x/data.pkl: broken pickle: what ends before byte 6 cannot be done`},
		"ADDITEMS of a list":            {"\x8f(]\x90.", `a set was saved, want a dictionary of tensors`},
		"a dictionary as a key":         {"(d(dNs.", `the dictionary has a dictionary among its names`},
		"a list of itself":              {"]q\x00h\x00a.", `a list was saved, want a dictionary of tensors`},
		"a dictionary of itself":        {"}q\x00S'a'\nh\x00s.", `"a" is a dictionary, not a tensor`},
		"a tuple of itself":             {"]q\x00h\x00\x85a.", `a list was saved, want a dictionary of tensors`},
		"a set as a root":               {"\x8f.", `a set was saved, want a dictionary of tensors`},
		"bytes as a root":               {"C\x01a.", `a string of bytes was saved, want a dictionary of tensors`},
		"a list as a value":             {"}S'a'\n]s.", `"a" is a list, not a tensor`},
		"a name of 5000 characters":     {"}X\x88\x13\x00\x00" + strings.Repeat("\x1b", 5000) + "Ns.", `"` + strings.Repeat(`\x1b`, 80) + `" is a None, not a tensor`},
	} {
		_, err := Parse(pack(t, c.program, map[string]string{"data/0": strings.Repeat("\x00", 64)}), "x")
		if err == nil || err.Error() != "x: "+c.want {
			t.Errorf("%s: %v\nwant x: %s", name, err, c.want)
		}
	}
}

// entry4 is a tensor "a" of 4 float32 in storage 0.
var entry4 = program("FloatStorage\nS'0'\nS'cpu'\nI4\n", "I0\n", "I4\n", "I1\n")

// record is an entry of a zip file, as its own header and the list at the end of the file give it.
type record struct {
	name, data string
	localName  string // where it is another
	method     uint16
	flags      uint16
	packed     uint64 // where the list lies about the bytes in the file
	size       uint64 // where it lies about the bytes of the record
	at         int    // where it lies about the place, plus 1
	signature  string // where it is another
	before     string // bytes before the header
}

// list is what the end of a zip file says of its list of records.
type list struct{ records, bytes, offset int64 }

// archiveOf writes a zip file by hand. With lie the end of the file says what that makes of the truth.
func archiveOf(records []record, lie func(*list)) []byte {
	var out, directory []byte
	le := binary.LittleEndian
	for _, r := range records {
		out = append(out, r.before...)
		at, local := len(out), r.name
		if r.localName != "" {
			local = r.localName
		}
		packed, size := uint64(len(r.data)), uint64(len(r.data))
		if r.packed != 0 {
			packed = r.packed
		}
		if r.size != 0 {
			size = r.size
		}
		if r.at != 0 {
			at = r.at - 1
		}
		signature := "PK\x03\x04"
		if r.signature != "" {
			signature = r.signature
		}
		out = append(out, signature...)
		out = le.AppendUint16(le.AppendUint16(le.AppendUint16(out, 45), r.flags), r.method)
		out = append(out, make([]byte, 8)...) // time, date, CRC
		out = le.AppendUint32(le.AppendUint32(out, uint32(len(r.data))), uint32(len(r.data)))
		out = le.AppendUint16(le.AppendUint16(out, uint16(len(local))), 0)
		out = append(append(out, local...), r.data...)

		directory = append(directory, "PK\x01\x02"...)
		directory = le.AppendUint16(le.AppendUint16(directory, 45), 45)
		directory = le.AppendUint16(le.AppendUint16(directory, r.flags), r.method)
		directory = append(directory, make([]byte, 8)...)
		directory = le.AppendUint32(le.AppendUint32(directory, 0xffffffff), 0xffffffff) // in the zip64 field
		directory = le.AppendUint16(le.AppendUint16(directory, uint16(len(r.name))), 20)
		directory = append(directory, make([]byte, 10)...)
		directory = append(le.AppendUint32(directory, uint32(at)), r.name...)
		directory = le.AppendUint64(le.AppendUint64(le.AppendUint16(le.AppendUint16(directory, 1), 16), size), packed)
	}
	l := list{int64(len(records)), int64(len(directory)), int64(len(out))}
	if lie != nil {
		lie(&l)
	}
	out = append(append(out, directory...), "PK\x05\x06\x00\x00\x00\x00"...)
	out = le.AppendUint16(le.AppendUint16(out, uint16(l.records)), uint16(l.records))
	out = le.AppendUint32(le.AppendUint32(out, uint32(l.bytes)), uint32(l.offset))
	return append(out, 0, 0)
}

// deflated is n zeros, compressed.
func deflated(n int) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	w.Write(make([]byte, n))
	w.Close()
	return b.String()
}

func TestLyingArchives(t *testing.T) {
	pkl := record{name: "x/data.pkl", data: entry4}
	zero := record{name: "x/data/0", data: strings.Repeat("\x00", 16)}
	good := []record{pkl, zero}
	if f, err := Parse(archiveOf(good, nil), "x"); err != nil || len(f.Names()) != 1 {
		t.Fatal(err)
	}
	with := func(r record, change func(*record)) record { change(&r); return r }
	bomb := deflated(64 << 20)
	two := strings.TrimSuffix(entry4, ".") + strings.TrimPrefix(strings.ReplaceAll(strings.ReplaceAll(entry4, "S'a'", "S'b'"), "S'0'", "S'1'"), "(d")
	for name, c := range map[string]struct {
		records []record
		lie     func(*list)
		want    string
	}{
		"a compressed pickle":          {[]record{{name: "x/data.pkl", data: bomb, method: 8, size: 64 << 20}, zero}, nil, `record "data.pkl" is compressed, which PyTorch's files never are`},
		"a compressed pickle of 4 EiB": {[]record{{name: "x/data.pkl", data: bomb, method: 8, size: 1 << 62}, zero}, nil, `record "data.pkl" is compressed, which PyTorch's files never are`},
		"a compressed storage":         {[]record{pkl, {name: "x/data/0", data: bomb, method: 8, size: 64 << 20}}, nil, `x/data.pkl: before byte 90: record "data/0" is compressed, which PyTorch's files never are`},
		"stored, of two sizes":         {[]record{pkl, with(zero, func(r *record) { r.size = 1 << 40 })}, nil, `x/data.pkl: before byte 90: record "data/0" has 16 bytes and is to have 1099511627776`},
		"of 2^63 bytes":                {[]record{pkl, with(zero, func(r *record) { r.size, r.packed = 1<<63, 1<<63 })}, nil, `x/data.pkl: before byte 90: record "data/0" has 9223372036854775808 bytes at 190, the file 378 in all`},
		"of 2^64-1 bytes":              {[]record{pkl, with(zero, func(r *record) { r.size, r.packed = 1<<64-1, 1<<64-1 })}, nil, `x/data.pkl: before byte 90: record "data/0" has 18446744073709551615 bytes at 190, the file 378 in all`},
		"longer than the file":         {[]record{pkl, with(zero, func(r *record) { r.size, r.packed = 4096, 4096 })}, nil, `x/data.pkl: before byte 90: record "data/0" has 4096 bytes at 190, the file 378 in all`},
		"shorter than the tensor":      {[]record{pkl, with(zero, func(r *record) { r.size, r.packed = 15, 15 })}, nil, `x/data.pkl: before byte 90: record "data/0" has 15 bytes, want 16 for 4 elements of F32`},
		"an unknown method":            {[]record{pkl, with(zero, func(r *record) { r.method = 99 })}, nil, `x/data.pkl: before byte 90: record "data/0" is compressed, which PyTorch's files never are`},
		"a storage over the pickle":    {[]record{pkl, with(zero, func(r *record) { r.at = 1 })}, nil, `records "data/0" and "data.pkl" overlap: bytes [40, 56) and [40, 152)`},
		"two storages in one place": {[]record{{name: "x/data.pkl", data: two}, zero,
			{name: "x/data/1", data: zero.data, at: 30 + len("x/data.pkl") + len(two) + 1}}, nil, `records "data/0" and "data/1" overlap: bytes [299, 315) and [299, 315)`},
		"a header behind the end":        {[]record{pkl, with(zero, func(r *record) { r.at = 1 << 20 })}, nil, `x/data.pkl: before byte 90: record "data/0": nothing is in its place in the file: EOF`},
		"a header that is none":          {[]record{pkl, with(zero, func(r *record) { r.signature = "MZ\x00\x00" })}, nil, `x/data.pkl: before byte 90: record "data/0": nothing is in its place in the file: zip: not a valid zip file`},
		"the same name twice":            {[]record{pkl, zero, zero}, nil, `record "x/data/0" is there twice`},
		"two pickles":                    {[]record{pkl, with(pkl, func(r *record) { r.name = "y/data.pkl" }), zero}, nil, `records "x/data.pkl" and "y/data.pkl": one of them is too many`},
		"a name above the file":          {[]record{pkl, zero, {name: "../../etc/passwd"}}, nil, `refused: record "../../etc/passwd" is not a name inside the file`},
		"a name above, hidden":           {[]record{pkl, zero, {name: "x/data/../../../etc/passwd"}}, nil, `refused: record "x/data/../../../etc/passwd" is not a name inside the file`},
		"an absolute name":               {[]record{pkl, zero, {name: "/etc/passwd"}}, nil, `refused: record "/etc/passwd" is not a name inside the file`},
		"a name of Windows":              {[]record{pkl, zero, {name: "x\\..\\..\\evil"}}, nil, `refused: record "x\\..\\..\\evil" is not a name inside the file`},
		"no name":                        {[]record{pkl, zero, {name: ""}}, nil, `refused: record "" is not a name inside the file`},
		"a name of control characters":   {[]record{pkl, zero, {name: "/\x1b[2J" + strings.Repeat("x", 300)}}, nil, `refused: record "/\x1b[2Jxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" is not a name inside the file`},
		"the pickle outside a directory": {[]record{with(pkl, func(r *record) { r.name = "data.pkl" }), zero}, nil, `a zip file without data.pkl: not a PyTorch file`},
		"no pickle":                      {[]record{zero}, nil, `a zip file without data.pkl: not a PyTorch file`},
		"more records than there are":    {good, func(l *list) { l.records = 3 }, `the file is cut off or not a PyTorch file: unexpected EOF`},
		"fewer records than there are":   {good, func(l *list) { l.records = 1 }, `the file is cut off or not a PyTorch file: unexpected EOF`},
		"a list behind the end":          {good, func(l *list) { l.offset = 1 << 30 }, `record "data.pkl": nothing is in its place in the file: bytes.Reader.ReadAt: negative offset`},
		"a list of 4 GiB":                {good, func(l *list) { l.bytes = 1<<32 - 2 }, `the file is cut off or not a PyTorch file: zip: not a valid zip file`},
	} {
		data := archiveOf(c.records, c.lie)
		var err error
		hostile.Bounded(t, 0, 0, func() { _, err = Parse(data, "x") })
		if err == nil || err.Error() != "x: "+c.want {
			t.Errorf("%s: %v\nwant x: %s", name, err, c.want)
		}
	}
}

// What a record's own header says beside its length does not count: the list at the end of the file does.
func TestLocalHeaders(t *testing.T) {
	f, err := Parse(archiveOf([]record{
		{name: "x/data.pkl", localName: "y/evil.pkl", data: entry4, flags: 8}, {name: "x/data/0", localName: "../../0", data: strings.Repeat("\x07", 16), before: "PK\x07\x08"},
	}, nil), "x")
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := f.Tensor("a"); !ok || string(a.Data) != strings.Repeat("\x07", 16) {
		t.Errorf("got %q", a.Data)
	}
}

// A long list of records is given up before it takes the memory.
func TestManyRecords(t *testing.T) {
	many := make([]record, 2000)
	for i := range many {
		many[i].name = fmt.Sprintf("x/%d", i) + strings.Repeat("x", 20000)
	}
	_, err := Parse(archiveOf(many, nil), "x")
	if want := "x: the file is cut off or not a PyTorch file: a list of records of more than 33554432 bytes"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestLyingOldFiles(t *testing.T) {
	const head = oldMagic + oldVersion + oldSystem
	const keys = "](S'0'\ne."
	count := func(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }
	data := strings.Repeat("\x00", 16)
	if f, err := Parse([]byte(head+entry4+keys+count(4)+data), "x"); err != nil || len(f.Names()) != 1 {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ file, want string }{
		"another magic number":          {"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x18.", `neither a zip nor the old format of torch.save`},
		"a list of itself as a magic":   {"]q\x00h\x00a.", `neither a zip nor the old format of torch.save`},
		"version 1002":                  {oldMagic + "M\xea\x03.", `version 1002, want 1001`},
		"a list of itself as a version": {oldMagic + "]q\x00h\x00a.", `version list, want 1001`},
		"a deep list as a version":      {oldMagic + strings.Repeat("]", 100_000) + strings.Repeat("a", 99_999) + ".", `version list, want 1001`},
		"a tuple of itself as a system": {oldMagic + oldVersion + "]q\x00h\x00\x85a.", `system: a list was saved, want a dictionary of tensors`},
		"big-endian":                    {oldMagic + oldVersion + "}S'little_endian'\n\x89s.", `the file is big-endian, which is not supported`},
		"the version is missing":        {oldMagic, `version at byte 15: the pickle ends at byte 0 without a STOP`},
		"the object is missing":         {head, `object at byte 45: the pickle ends at byte 0 without a STOP`},
		"the list is missing":           {head + entry4, `list of storages at byte 157: the pickle ends at byte 0 without a STOP`},
		"the list is a dictionary":      {head + entry4 + "}.", `the list of storages is a dictionary`},
		"a list of itself as the list":  {head + entry4 + "]q\x00h\x00a.", `storage "" belongs to no tensor`},
		"a storage of nobody":           {head + entry4 + "](S'0'\nS'1'\ne." + count(4) + data, `storage "1" belongs to no tensor`},
		"a storage twice":               {head + entry4 + "](S'0'\nS'0'\ne." + count(4) + data + count(4) + data, `storage "0" is there twice`},
		"a storage is missing":          {head + entry4 + "]." + count(4) + data, `storage "0" is not in the file`},
		"fewer elements":                {head + entry4 + keys + count(3) + data, `storage "0" at byte 174 has 3 elements, want 4`},
		"2^62 elements":                 {head + entry4 + keys + count(1<<62) + data, `storage "0" at byte 174 has 4611686018427387904 elements, want 4`},
		"2^64-1 elements":               {head + entry4 + keys + count(1<<64-1) + data, `storage "0" at byte 174 has 18446744073709551615 elements, want 4`},
		"no count":                      {head + entry4 + keys + "\x04\x00", `storage "0": the file ends at byte 168, want 8 more`},
		"data cut off":                  {head + entry4 + keys + count(4) + data[:15], `storage "0" at byte 174 has 16 bytes, the file ends at 189`},
		"2^62 elements in both places":  {head + strings.Replace(entry4, "I4", "I4611686018427387904", 1) + keys + count(1<<62) + data, `object at byte 45: before byte 108: a storage with type F32, key 0 and 4611686018427387904 elements`},
		"2^46 elements in both places":  {head + strings.Replace(entry4, "I4", "I70368744177664", 1) + keys + count(1<<46) + data, `storage "0" at byte 187 has 281474976710656 bytes, the file ends at 203`},
		"a storage in a storage":        {head + strings.Replace(entry4, "I4\ntQ", "I4\n(S'1'\nI0\nI2\nttQ", 1) + keys + count(4) + data, `object at byte 45: before byte 103: storage "0" is a view of another, which is not supported`},
	} {
		_, err := Parse([]byte(c.file), "x")
		if err == nil || err.Error() != "x: "+c.want {
			t.Errorf("%s: %v\nwant x: %s", name, err, c.want)
		}
	}
}
