// Web shells in Python: Flask, Django, bare WSGI and CGI, http.server.

rule webshell_python_request_into_sink : webshell python
{
    meta:
        description = "Python web code that executes what a visitor sends"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        // The request stands inside the call. Django spells its sources in capitals.
        $direct = /\b(os\.(system|popen)|subprocess\.(run|call|Popen|check_output|check_call|getoutput|getstatusoutput)|commands\.getoutput|pty\.spawn|[^\w.](eval|exec)|[^\w.]__import__)\s{0,4}\(\s{0,4}\[?[^;\n#]{0,80}\b(request\s{0,2}\.\s{0,2}(args|form|values|data|json|headers|cookies|GET|POST|META|COOKIES|body|query|params|query_params|get_json|get_data|query_string|rel_url|stream|files)\b|self\.get_(query_|body_)?argument\s{0,2}\(|web\.input\s{0,2}\(|bottle\.request|FieldStorage\s{0,2}\(|environ\s{0,2}(\[|\.get\s{0,2}\()\s{0,2}["'](HTTP_|QUERY_STRING|wsgi\.input))/
        $cgi = /\b(os\.(system|popen)|subprocess\.\w{3,16}|[^\w.](eval|exec))\s{0,4}\(\s{0,4}[^;\n#]{0,40}\b(form|fs|params|query|qs|args)\s{0,2}(\.getvalue|\.getfirst|\[\s{0,2}["'])[^;\n]{1,60}/

    condition:
        filesize < 512KB and uint32be(0) != 0x7f454c46 and any of them
}

rule webshell_python_request_through_variable : webshell python
{
    meta:
        description = "Small Python web program that hands a visitor's value to a shell"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $source = /\b\w{1,24}\s{0,4}=\s{0,4}[^;\n]{0,60}(\brequest\s{0,2}\.\s{0,2}(args|form|values|data|json|headers|cookies|GET|POST|META|body|query|params|query_params|get_json|get_data|query_string)\b|get_(query_|body_)?argument\s{0,2}\(|FieldStorage\s{0,2}\(|parse_qsl?\s{0,2}\(|self\.headers|self\.rfile\.read|self\.path|environ\s{0,2}(\[|\.get\s{0,2}\()\s{0,2}["'](HTTP_|QUERY_STRING|PATH_INFO|wsgi\.input))/
        // A shell, not a program with arguments: shell=True or a function that implies it.
        $shell1 = /\bos\.(system|popen)\s{0,4}\(\s{0,4}[a-z_]\w{0,24}\s{0,4}(\)|\.|\[|\+|%)/
        $shell2 = /\bsubprocess\.(run|call|Popen|check_output|check_call)\s{0,4}\(\s{0,4}[a-z_]\w{0,24}(\.\w{1,10}\([^)\n]{0,20}\)|\[[^\]\n]{1,20}\])?\s{0,4},[^)\x00]{0,160}shell\s{0,2}=\s{0,2}(True|1)/
        $shell3 = /\bsubprocess\.(getoutput|getstatusoutput)\s{0,4}\(\s{0,4}[a-z_]\w{0,24}/
        $shell4 = /\bsubprocess\.\w{3,16}\s{0,4}\(\s{0,4}\[\s{0,2}["'](\/usr)?(\/bin\/)?(ba|da)?sh["']\s{0,2},\s{0,2}["']-c["']\s{0,2},\s{0,2}[a-z_]\w{0,24}/
        $shell5 = /[^\w.](eval|exec)\s{0,4}\(\s{0,4}(compile\s{0,2}\(\s{0,2}|base64\.b64decode\s{0,2}\(\s{0,2}|bytes\.fromhex\s{0,2}\(\s{0,2}|zlib\.decompress\s{0,2}\(\s{0,2}){0,3}[a-z_]\w{0,24}\s{0,2}[,).\[]/
        $shell6 = /create_subprocess_shell\s{0,2}\(\s{0,2}[a-z_]\w{0,24}/
        // It serves.
        $serve1 = /\b(Flask|FastAPI|Bottle|Sanic|Starlette|Quart)\s{0,2}\(/
        $serve2 = /BaseHTTPRequestHandler|SimpleHTTPRequestHandler|HTTPServer\s{0,2}\(/
        $serve3 = /Content-[Tt]ype:\s{0,2}text\/(html|plain)/
        $serve4 = "start_response"
        $serve5 = /@(app|bp|route|api|application|blueprint)\b/
        $serve6 = /def\s{1,4}\w{1,24}\s{0,2}\(\s{0,2}request\b|HttpResponse\s{0,2}\(/
        $serve7 = /RequestHandler\s{0,2}\)|web\.application\s{0,2}\(|aiohttp/
        $care = /shlex\.quote|pipes\.quote|ast\.literal_eval|login_required|unittest|pytest/

    condition:
        filesize < 6KB and uint32be(0) != 0x7f454c46
        and $source and any of ($shell*) and any of ($serve*) and not $care
}

rule webshell_python_memory_resident : webshell python
{
    meta:
        description = "Python code that plants a command route in a running web application"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        $plant1 = /(before|after|teardown)_request_funcs\b[^\n]{0,80}(setdefault|append|\[)[^\n]{0,80}lambda/
        $plant2 = /\.add_url_rule\s{0,2}\([^\n]{0,120}lambda[^\n]{0,200}(popen|system|subprocess|eval|exec)\b/
        $plant3 = /error_handler_spec\s{0,2}\[[^\n]{0,120}lambda/
        $run = /(popen|os\.system|subprocess|\beval|\bexec|__import__)\b/

    condition:
        filesize < 256KB and uint32be(0) != 0x7f454c46
        and ($plant2 or (any of ($plant1, $plant3) and $run))
}

rule webshell_python_encoded_program : webshell python
{
    meta:
        description = "Python code that executes a literal decoded in two or more steps"
        // Obfuscators of commercial programs write the same.
        severity = "Warning"
        attack = "T1027.013"
        reference = "none"
        version = 1

    strings:
        $chain = /[^\w.](eval|exec)\s{0,4}\(\s{0,4}(compile\s{0,2}\(\s{0,2})?(\w{1,16}\.)?(decompress|b64decode|b32decode|b85decode|a85decode|unhexlify|loads|decode|fromhex)\s{0,2}\(\s{0,2}(\w{1,16}\.)?(decompress|b64decode|b32decode|b85decode|a85decode|unhexlify|loads|fromhex)\s{0,2}\(/
        $imported = /__import__\s{0,2}\(\s{0,2}["'](zlib|base64|marshal|codecs|bz2|lzma)["']\s{0,2}\)\s{0,2}\.\s{0,2}\w{4,16}\s{0,2}\(\s{0,2}__import__\s{0,2}\(\s{0,2}["'](zlib|base64|marshal|codecs|bz2|lzma)["']/
        $exec = /[^\w.](eval|exec)\s{0,4}\(/

    condition:
        filesize < 4MB and uint32be(0) != 0x7f454c46
        and ($chain or ($imported and $exec))
}
