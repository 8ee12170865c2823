//! Files that resemble what the rules look for and are not it.

/// Name and text.
pub(crate) const LOOK_ALIKES: &[(&str, &str)] = &[
    (
        "php page",
        "<?php\nrequire __DIR__ . '/vendor/autoload.php';\n$page = $_GET['page'] ?? 'home';\n$allowed = ['home', 'about'];\nif (!in_array($page, $allowed, true)) { http_response_code(404); exit; }\necho $twig->render(\"$page.html\", ['user' => $_SESSION['user'] ?? null]);\n?>\n<h1><?= htmlspecialchars($_GET['title'] ?? '') ?></h1>\n",
    ),
    (
        "php database",
        "<?php\n$db = new PDO($dsn);\n$st = $db->prepare('SELECT * FROM t WHERE id = ?');\n$st->execute([$_POST['id']]);\n$db->exec('VACUUM');\n$r = curl_exec($ch);\n$names = array_map('trim', explode(',', $_POST['names']));\nusort($rows, fn($a, $b) => $a['n'] <=> $b['n']);\n",
    ),
    (
        "php convert",
        "<?php\n$size = $_POST['size'];\n$cmd = sprintf('convert %s -resize %s out.png', escapeshellarg($file), escapeshellarg($size));\nexec($cmd, $out, $rc);\n",
    ),
    (
        "php upload",
        "<?php\nsession_start();\n$ext = pathinfo($_FILES['f']['name'], PATHINFO_EXTENSION);\nif (in_array($ext, ['png', 'jpg'])) { move_uploaded_file($_FILES['f']['tmp_name'], 'u/' . bin2hex(random_bytes(8)) . '.' . $ext); }\n",
    ),
    (
        "php manual",
        "<p>The functions <code>system()</code>, <code>exec()</code> and <code>eval()</code> run what they are given. Never pass <code>$_GET</code> to them.</p>",
    ),
    (
        "jsp memory page",
        "<%@ page contentType=\"text/html\" %>\n<% Runtime rt = Runtime.getRuntime(); String unit = request.getParameter(\"unit\"); %>\n<p>Free: <%= rt.freeMemory() / 1024 %> of <%= rt.totalMemory() / 1024 %> for <c:out value=\"${param.unit}\"/></p>\n<%@ include file=\"footer.jsp\" %>",
    ),
    (
        "jsp image",
        "<%@ page import=\"java.io.*\" %><% InputStream in = application.getResourceAsStream(\"/logo.png\"); String w = request.getParameter(\"w\"); in.transferTo(response.getOutputStream()); %>",
    ),
    (
        "flask application",
        "import subprocess\nfrom flask import Flask, request, render_template\napp = Flask(__name__)\n\n@app.route('/log')\ndef log():\n    branch = request.args.get('branch', 'main')\n    if branch not in BRANCHES:\n        return 'no', 404\n    out = subprocess.run(['git', 'log', '--oneline', branch], capture_output=True, text=True)\n    return render_template('log.html', lines=out.stdout.splitlines())\n",
    ),
    (
        "python server",
        "import socket\ns = socket.socket()\ns.bind(('', 8080))\ns.listen()\nwhile True:\n    c, _ = s.accept()\n    data = c.recv(1024)\n    c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + data)\n",
    ),
    (
        "python client",
        "import socket, subprocess\ns = socket.create_connection(('db', 5432))\ns.send(b'ping')\nprint(s.recv(16))\nsubprocess.run(['systemctl', 'restart', 'db'], check=True)\n",
    ),
    (
        "python pty",
        "import pty, os\npty.spawn('/bin/bash')\nos.dup2(log.fileno(), 1)\n",
    ),
    (
        "wait for a port",
        "#!/bin/bash\nuntil nc -z db 5432; do sleep 1; done\nuntil (echo > /dev/tcp/db/5432) 2>/dev/null; do sleep 1; done\nexec 3<>/dev/tcp/db/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3\nexec \"$@\"\n",
    ),
    (
        "certificate check",
        "#!/bin/sh\necho | openssl s_client -connect example.org:443 -servername example.org 2>/dev/null | openssl x509 -noout -dates > /tmp/dates\nopenssl enc -d -aes-256-cbc -in backup.enc | tar xf -\nnc -l -p 9000 > dump.sql\ntar c . | nc host 9000\n",
    ),
    (
        "socat proxy",
        "#!/bin/sh\nexec socat TCP-LISTEN:8080,fork,reuseaddr UNIX-CONNECT:/run/app.sock\nsocat TCP-LISTEN:9000,fork EXEC:/usr/local/bin/handler.sh\n",
    ),
    (
        "nc handler",
        "#!/bin/sh\nwhile :; do nc -l -p 8000 -e ./respond.sh; done\nmkfifo /tmp/pipe; nc -l 8080 < /tmp/pipe | ./filter > /tmp/pipe\n",
    ),
    (
        "install script",
        "#!/bin/sh\nset -eu\ncurl -fsSL https://example.org/tool-linux-x86_64 -o /usr/local/bin/tool\nchmod +x /usr/local/bin/tool\nsystemctl daemon-reload\nsystemctl enable --now tool\nsysctl -w vm.nr_hugepages=128\nrm -f \"$0\"\n",
    ),
    (
        "nginx",
        "server { listen 80; root /srv; index index.php;\n location ~ \\.php$ { fastcgi_pass unix:/run/php.sock; include fastcgi_params; }\n location ~* \\.(jpg|png)$ { expires 30d; } }\nstream { upstream stratum { server 10.0.0.2:3333; } }\n",
    ),
    (
        "redis",
        "bind 127.0.0.1\nport 6379\nrename-command CONFIG \"\"\nrequirepass foobared\ndir /var/lib/redis\n",
    ),
    (
        "pool prose",
        "Miners speak stratum to a pool: the client sends mining.subscribe and mining.authorize, then mining.submit for each share. URLs have the form stratum+tcp://HOST:PORT. A hashrate in hash/s says little.",
    ),
    (
        "keepalived",
        "vrrp_instance VI_1 { state MASTER interface eth0 virtual_router_id 51 priority 100 }\n# keepalived, not a pool; login: admin\n{\"method\": \"login\", \"params\": {\"user\": \"admin\"}}\n",
    ),
    (
        "backup manual",
        "If your files have been encrypted by ransomware, restore them from a backup. Do not pay. A decryptor may exist. Victims were asked for bitcoin within 72 hours.",
    ),
    (
        "vault manual",
        "Data at rest are encrypted with a private key. To decrypt your data, run `vault decrypt`. Do not delete the key: files without it are permanently lost. Write to security@example.org.",
    ),
    (
        "preload in prose",
        "The loader reads /etc/ld.so.preload; LD_PRELOAD does the same for one process.\n# cat /etc/ld.so.preload\n",
    ),
    (
        "express application",
        "const { execFile } = require('child_process');\napp.get('/v', (req, res) => { execFile('git', ['rev-parse', 'HEAD'], (e, out) => res.send(out)); });\napp.post('/q', (req, res) => db.query('select 1', [req.body.id]));\n",
    ),
    (
        "perl application",
        "#!/usr/bin/perl\nuse strict; use CGI;\nmy $q = CGI->new; print $q->header('text/html');\nmy $name = $q->param('name');\nprint \"<p>\", $q->escapeHTML($name), \"</p>\";\nsystem('/usr/bin/updatedb');\n",
    ),
];
